#include "storage/state_database.hpp"

#include "storage/state_schema.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::storage {
namespace {

using base::Errc;
using base::Result;

// What is deleted is overwritten: requests that wait for their turn may hold secrets.
// 4 MiB of log before it is moved into the database, and no more than 16 MiB of it kept on the disk.
constexpr const char* settings =
    "PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;"
    "PRAGMA wal_autocheckpoint = 1000; PRAGMA journal_size_limit = 16777216; PRAGMA secure_delete = ON;";

bool is_full(const base::Error& error) { return error.code == Errc::insufficient_storage; }

std::string one_line(std::string text) {
    std::ranges::replace(text, '\n', ' ');
    return text;
}

std::unexpected<base::Error> closed() { return base::fail(Errc::io_error, "the state database is closed"); }

}  // namespace

std::unexpected<StateDatabase::Refusal> StateDatabase::refuse(const Handle& database, base::Error error) {
    const bool damaged = database && database->damaged();
    return std::unexpected{Refusal{damaged ? Refusal::Kind::damaged : Refusal::Kind::other, std::move(error)}};
}

Result<void> StateDatabase::open(Times at) {
    const auto copy = place_.files.find(place_.copy());
    if (copy && *copy) copied_ms_ = (*copy)->modified_ms;
    const auto gone = missing();
    if (!gone) return base::fail(gone.error());
    if (!gone->empty()) return start_anew(*gone, at);

    auto opened = try_to_open();
    if (!opened && is_full(opened.error().error) && reserve_.give_up(at.now)) opened = try_to_open();
    if (!opened && is_full(opened.error().error) && !place_.exclusive) {
        log_.warn("no room for shared memory beside the state database: opened for this process alone",
                  {{"path", place_.path}});
        place_.exclusive = true;
        opened = try_to_open();
    }
    if (!opened) {
        auto& [kind, error] = opened.error();
        if (kind == Refusal::Kind::other) return base::fail(std::move(error));
        if (kind == Refusal::Kind::damaged) return start_anew(fmt::format("was damaged ({})", error.detail), at);
        if (auto removed = remove_empty(true); !removed) return removed;
        return start_anew(error.detail, at);
    }
    reserve_.restore(at.now);
    return {};
}

StateDatabase::Attempt<void> StateDatabase::try_to_open() {
    auto database = open_file();
    if (!database) return std::unexpected{std::move(database).error()};
    const auto version = version_of(**database);
    if (!version) return refuse(*database, version.error());
    if (*version == 0) {
        const auto before = traces();
        if (!before) return refuse(nullptr, before.error());
        if (*before) return std::unexpected{Refusal{Refusal::Kind::empty, {Errc::io_error, "was empty"}}};
    }
    if (*version < newest_version())
        if (auto done = migrate(*database, *version); !done) return done;
    auto tables = Tables::prepare(*database);
    if (!tables) return refuse(*database, std::move(tables).error());
    tables_.emplace(std::move(*tables));
    return {};
}

StateDatabase::Attempt<StateDatabase::Handle> StateDatabase::open_file() {
    auto& files = place_.files;
    if (auto made = files.make_private(place_.path); !made) return refuse(nullptr, std::move(made).error());
    if (auto kept = files.sync_directory_of(place_.path); !kept) return refuse(nullptr, std::move(kept).error());
    auto opened = sqlite::Database::open(place_.path, {files.vfs()});
    if (!opened) return refuse(nullptr, std::move(opened).error());
    auto database = std::make_shared<sqlite::Database>(std::move(*opened));

    // The version comes first: what a newer agent wrote may look damaged to us.
    auto set = database->execute("PRAGMA busy_timeout = 5000");
    if (set && place_.exclusive) set = database->execute("PRAGMA locking_mode = EXCLUSIVE");
    if (!set) return refuse(database, std::move(set).error());
    const auto version = version_of(*database);
    if (!version) return refuse(database, version.error());
    if (*version > newest_version()) {
        const auto told = database->first_text("PRAGMA user_version").value_or("unknown");
        base::Error newer{Errc::io_error,
                          fmt::format("{} is of version {}, made by a newer agent; this one knows versions up to {}: "
                                      "install the newer agent again, or put a backup of the file back",
                                      place_.path, told, newest_version())};
        return std::unexpected{Refusal{Refusal::Kind::other, std::move(newer)}};
    }
    if (set = database->execute(settings); !set) return refuse(database, std::move(set).error());
    const auto mode = database->first_text("PRAGMA journal_mode = WAL");
    if (!mode) return refuse(database, mode.error());
    if (*mode != "wal")
        return refuse(nullptr, {Errc::io_error, place_.path + ": no write-ahead log on this file system"});
    // What an agent that was killed had written and not synced is told from now on, so it has to outlive a power loss.
    const auto log = files.find(place_.beside("-wal"));
    if (log && *log)
        if (auto synced = files.sync(place_.beside("-wal")); !synced) return refuse(nullptr, std::move(synced).error());
    const auto check = database->first_text("PRAGMA quick_check(1)");
    if (!check) return refuse(database, check.error());
    if (*check != "ok") return std::unexpected{Refusal{Refusal::Kind::damaged, {Errc::io_error, one_line(*check)}}};
    return database;
}

StateDatabase::Attempt<void> StateDatabase::migrate(const Handle& database, int version) {
    if (version > 0)
        if (auto copied = copy_before_migration(*database, place_, version); !copied)
            return refuse(database, std::move(copied).error());
    auto transaction = sqlite::Transaction::begin(*database);
    if (!transaction) return refuse(database, std::move(transaction).error());
    for (int from = version; from < newest_version(); ++from)
        if (auto done = migrate_from(*database, from); !done) return refuse(database, std::move(done).error());
    if (auto done = transaction->commit(); !done) return refuse(database, std::move(done).error());
    log_.info("state database migrated", {{"path", place_.path}, {"from", version}, {"to", newest_version()}});
    return {};
}

Result<bool> StateDatabase::traces() {
    const auto copy = place_.files.find(place_.copy());
    if (!copy) return base::fail(copy.error());
    const auto before = newest_set_aside(place_);
    if (!before) return base::fail(before.error());
    return copy->has_value() || before->has_value();
}

Result<std::string> StateDatabase::missing() {
    const auto found = place_.files.find(place_.path);
    if (!found) return base::fail(found.error());
    if (*found && (*found)->bytes > 0) return std::string{};
    const auto log = place_.files.find(place_.beside("-wal"));
    if (!log) return base::fail(log.error());
    const bool logged = *log && (*log)->bytes > 0;
    const auto before = traces();
    if (!before) return base::fail(before.error());
    if (!logged && !*before) return std::string{};
    if (auto removed = remove_empty(!logged); !removed) return base::fail(std::move(removed).error());
    return std::string{*found ? "was empty" : "was missing"};
}

Result<void> StateDatabase::remove_empty(bool with_log) {
    for (const auto* const part : {"", "-shm", "-wal"}) {
        if (!with_log && part == std::string_view{"-wal"}) continue;
        if (auto gone = place_.files.remove(place_.beside(part)); !gone) return gone;
    }
    return {};
}

Result<void> StateDatabase::start_anew(std::string_view why, Times at) {
    tables_.reset();
    const auto moved = set_aside(place_, at.wall);
    if (!moved) return base::fail(moved.error());
    const auto taken = take_from_copy(place_);
    auto made = make_new(taken.changes);
    if (!made && is_full(made.error()) && reserve_.give_up(at.now)) made = make_new(taken.changes);
    if (!made) return made;
    auto where = *moved;
    if (!where) where = newest_set_aside(place_).value_or(std::nullopt);
    const auto there = where ? fmt::format("; what was damaged is now {}", *where) : std::string{};
    loss_ = fmt::format("The state database {} {}{}. {}", place_.path, why, there, taken.told);
    log_.error("the state database was lost and made anew",
               {{"path", place_.path}, {"why", why}, {"moved_to", where.value_or("")}, {"taken", taken.told}});
    reserve_.restore(at.now);
    return {};
}

Result<void> StateDatabase::make_new(const Changes& taken) {
    const auto database = open_file();
    if (!database) return base::fail(database.error().error);
    // With what was taken in one transaction: whoever finds the tables finds them filled.
    auto transaction = sqlite::Transaction::begin(**database);
    if (!transaction) return base::fail(std::move(transaction).error());
    for (int from = 0; from < newest_version(); ++from)
        if (auto done = migrate_from(**database, from); !done) return done;
    auto tables = Tables::prepare(*database);
    if (!tables) return base::fail(std::move(tables).error());
    if (auto done = tables->apply(taken); !done) return done;
    if (auto done = transaction->commit(); !done) return done;
    tables_.emplace(std::move(*tables));
    return {};
}

Result<StoredState> StateDatabase::load(Times at) {
    if (!tables_) return closed();
    auto state = tables_->load();
    if (state || !tables_->database().damaged()) return state;
    if (auto anew = start_anew(fmt::format("was damaged ({})", state.error().detail), at); !anew)
        return base::fail(std::move(anew).error());
    return tables_->load();
}

void StateDatabase::commit(std::span<const std::shared_ptr<Commit>> commits, Times at) {
    const bool together = tables_ && commits.size() > 1 && tables_->commit_together(commits);
    if (together) fault_.clear();
    for (const auto& commit : commits) {
        if (!together) commit->result = tables_ ? commit_one(commit->changes, at) : closed();
        commit->over = true;
    }
    if (tables_ && fault_.empty()) reserve_.restore(at.now);
}

Result<void> StateDatabase::commit_one(const Changes& changes, Times at) {
    auto done = tables_->commit(changes);
    if (done) {
        fault_.clear();
        return done;
    }
    if (is_full(done.error())) {
        fault_ = done.error().detail;
        if (reserve_.give_up(at.now))
            log_.warn("the disk is full: the room kept back for the state database is given up",
                      {{"path", place_.path}, {"error", fault_}});
        // Not truncated: the room that the log has is the last there is. What it held gets its place in the database
        // while there is some, so that the log can start anew in its own.
        static_cast<void>(tables_->checkpoint(Tables::Log::restart));
        done = tables_->commit(changes);
        if (done) static_cast<void>(tables_->checkpoint(Tables::Log::restart));
    }
    if (!done && (is_full(done.error()) || done.error().code == Errc::io_error)) fault_ = done.error().detail;
    return done;
}

Result<void> StateDatabase::back_up(Times at) {
    if (!tables_) return closed();
    const auto found = place_.files.find(place_.path);
    const auto free = place_.files.free_bytes(place_.path);
    // A copy must not take what the journal itself will need.
    if (found && *found && free && *free < (*found)->bytes + 2 * DiskReserve::size) {
        base::Error error{Errc::insufficient_storage, "no room for a copy of " + place_.path};
        base::add_disk_facts(error, (*found)->bytes + 2 * DiskReserve::size, *free);
        return base::fail(std::move(error));
    }
    if (auto copied = copy_database(tables_->database(), place_, place_.copy()); !copied) return copied;
    copied_ms_ = base::to_unix_ms(at.wall);
    reserve_.restore(at.now);
    return {};
}

Result<bool> StateDatabase::close() {
    if (!tables_) return true;
    auto moved = tables_->checkpoint(Tables::Log::truncate);
    tables_.reset();
    return moved;
}

StoreHealth StateDatabase::health() const { return {loss_, fault_, reserve_.held(), copied_ms_}; }

}  // namespace ghost::storage
