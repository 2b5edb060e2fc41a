#include "storage/sqlite_store.hpp"

#include "storage/sqlite.hpp"
#include "storage/worker_pool.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

namespace ghost::storage {
namespace {

using base::Errc;
using base::Result;

// migrations[n] makes a database of version n into one of version n + 1. They are never edited once released.
constexpr std::array migrations{
    R"(CREATE TABLE vms(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, document TEXT NOT NULL) STRICT;
       CREATE TABLE operations(id TEXT PRIMARY KEY NOT NULL, state TEXT NOT NULL, created_ms INTEGER NOT NULL,
                               finished_ms INTEGER, document TEXT NOT NULL) STRICT;
       CREATE INDEX operations_by_creation ON operations(created_ms);
       CREATE INDEX operations_by_finish ON operations(finished_ms) WHERE finished_ms IS NOT NULL;
       CREATE TABLE images(name TEXT PRIMARY KEY NOT NULL, document TEXT NOT NULL) STRICT;)",
    R"(CREATE TABLE events(id INTEGER PRIMARY KEY NOT NULL, document TEXT NOT NULL) STRICT;
       CREATE TABLE subjects(subject TEXT PRIMARY KEY NOT NULL, version TEXT NOT NULL) STRICT;
       CREATE TABLE keys(key TEXT PRIMARY KEY NOT NULL, fingerprint TEXT NOT NULL, operation TEXT NOT NULL,
                         created_ms INTEGER NOT NULL) STRICT;
       CREATE TABLE facts(name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) STRICT;)",
};

Result<void> migrate(sqlite::Database& database, base::Log& log) {
    const auto text = database.first_text("PRAGMA user_version");
    if (!text) return base::fail(text.error());
    std::size_t version = 0;
    const auto parsed = std::from_chars(text->data(), text->data() + text->size(), version);
    if (parsed.ec != std::errc{} || version > migrations.size())
        return base::fail(Errc::io_error,
                          fmt::format("{} is of version {}, made by a newer agent; this one knows versions up to {}: "
                                      "install the newer agent again, or put a backup of the file back",
                                      database.path(), *text, migrations.size()));
    for (; version < migrations.size(); ++version) {
        auto transaction = sqlite::Transaction::begin(database);
        if (!transaction) return base::fail(std::move(transaction).error());
        const auto next = version + 1;
        if (auto done = database.execute(migrations.at(version)); !done) return done;
        if (auto done = database.execute(fmt::format("PRAGMA user_version = {}", next)); !done) return done;
        if (auto done = transaction->commit(); !done) return done;
        log.info("state database migrated", {{"path", database.path()}, {"version", next}});
    }
    return {};
}

Result<sqlite::Database> open_database(const std::string& path, base::Log& log) {
    auto database = sqlite::Database::open(path);
    if (!database) return database;
    const auto damaged = [&path](std::string_view why) {
        return base::fail(Errc::io_error, fmt::format("{} is damaged ({}): move it away, or put a backup of it back; "
                                                      "VMs are found again in libvirt without it",
                                                      path, why));
    };
    const auto explained = [&](base::Error error) {
        const auto code = sqlite3_errcode(database->handle());
        return code == SQLITE_NOTADB || code == SQLITE_CORRUPT ? damaged(error.detail) : base::fail(std::move(error));
    };
    auto set = database->execute(
        "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL;"
        "PRAGMA trusted_schema = OFF; PRAGMA journal_size_limit = 16777216;");
    if (!set) return explained(std::move(set).error());
    const auto mode = database->first_text("PRAGMA journal_mode = WAL");
    if (!mode) return explained(mode.error());
    if (*mode != "wal")
        return base::fail(Errc::io_error, fmt::format("{}: no write-ahead log on this file system", path));
    const auto check = database->first_text("PRAGMA quick_check(1)");
    if (!check) return explained(check.error());
    if (*check != "ok") return damaged(*check);
    if (auto migrated = migrate(*database, log); !migrated) return base::fail(std::move(migrated).error());
    return database;
}

enum class Statement : std::uint8_t {
    put_vm,
    update_vm,
    put_operation,
    put_image,
    erase_vm,
    erase_image,
    prune_operations,
    put_event,
    put_subject,
    erase_subject,
    prune_events,
    put_key,
    prune_keys,
    put_fact,
};

constexpr std::pair<Statement, std::string_view> texts[] = {
    {Statement::put_vm,
     "INSERT INTO vms(id, name, document) VALUES(?, ?, ?) "
     "ON CONFLICT(id) DO UPDATE SET name = excluded.name, document = excluded.document"},
    {Statement::update_vm, "UPDATE vms SET document = ? WHERE id = ?"},
    {Statement::put_operation,
     "INSERT INTO operations(id, state, created_ms, finished_ms, document) VALUES(?, ?, ?, ?, ?) "
     "ON CONFLICT(id) DO UPDATE SET state = excluded.state, created_ms = excluded.created_ms, "
     "finished_ms = excluded.finished_ms, document = excluded.document"},
    {Statement::put_image,
     "INSERT INTO images(name, document) VALUES(?, ?) "
     "ON CONFLICT(name) DO UPDATE SET document = excluded.document"},
    {Statement::erase_vm, "DELETE FROM vms WHERE id = ?"},
    {Statement::erase_image, "DELETE FROM images WHERE name = ?"},
    {Statement::prune_operations,
     "DELETE FROM operations WHERE finished_ms IS NOT NULL AND (finished_ms < ? OR id IN "
     "(SELECT id FROM operations WHERE finished_ms IS NOT NULL ORDER BY created_ms DESC, id DESC "
     "LIMIT -1 OFFSET ?))"},
    {Statement::put_event, "INSERT OR REPLACE INTO events(id, document) VALUES(?, ?)"},
    {Statement::put_subject,
     "INSERT INTO subjects(subject, version) VALUES(?, ?) "
     "ON CONFLICT(subject) DO UPDATE SET version = excluded.version"},
    {Statement::erase_subject, "DELETE FROM subjects WHERE subject = ?"},
    {Statement::prune_events,
     "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id DESC LIMIT -1 OFFSET ?)"},
    {Statement::put_key,
     "INSERT INTO keys(key, fingerprint, operation, created_ms) VALUES(?, ?, ?, ?) "
     "ON CONFLICT(key) DO UPDATE SET fingerprint = excluded.fingerprint, operation = excluded.operation, "
     "created_ms = excluded.created_ms"},
    {Statement::prune_keys,
     "DELETE FROM keys WHERE created_ms < ? OR key IN "
     "(SELECT key FROM keys ORDER BY created_ms DESC, key DESC LIMIT -1 OFFSET ?)"},
    {Statement::put_fact,
     "INSERT INTO facts(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value"},
};

// One prepared statement for each of the few things that are written.
class Statements {
public:
    static Result<Statements> prepare(sqlite::Database& database) {
        Statements out;
        for (const auto& [which, sql] : texts) {
            auto statement = database.prepare(sql);
            if (!statement) return base::fail(std::move(statement).error());
            out.made_.emplace(which, std::move(*statement));
        }
        return out;
    }

    // Binds `values` in their order and runs it.
    template <class... V>
    Result<void> run(Statement which, const V&... values) {
        auto& statement = made_.at(which);
        int index = 0;
        (statement.bind(++index, values), ...);
        return statement.run();
    }

private:
    std::map<Statement, sqlite::Statement> made_;
};

// The database and what is done with it, on the store's thread only.
class Tables {
public:
    Tables(sqlite::Database database, Statements statements)
        : database_(std::move(database)), statements_(std::move(statements)) {}

    Result<StoredState> load() {
        StoredState state;
        auto vms = each("SELECT id, name, document FROM vms ORDER BY id", [&](const sqlite::Statement& row) {
            state.vms.push_back({row.text(0), row.text(1), row.text(2)});
        });
        auto operations = each(
            "SELECT id, state, created_ms, finished_ms, document FROM operations ORDER BY created_ms, id",
            [&](const sqlite::Statement& row) {
                state.operations.push_back({row.text(0), row.text(1), row.number(2), row.maybe_number(3), row.text(4)});
            });
        auto images = each("SELECT name, document FROM images ORDER BY name",
                           [&](const sqlite::Statement& row) { state.images.push_back({row.text(0), row.text(1)}); });
        auto events = each("SELECT id, document FROM events ORDER BY id", [&](const sqlite::Statement& row) {
            state.events.push_back({static_cast<std::uint64_t>(row.number(0)), "", "", row.text(1)});
        });
        auto subjects = each("SELECT subject, version FROM subjects", [&](const sqlite::Statement& row) {
            state.subjects.insert_or_assign(row.text(0), row.text(1));
        });
        auto keys = each("SELECT key, fingerprint, operation, created_ms FROM keys ORDER BY created_ms, key",
                         [&](const sqlite::Statement& row) {
                             state.keys.push_back({row.text(0), row.text(1), row.text(2), row.number(3)});
                         });
        auto facts = each("SELECT name, value FROM facts", [&](const sqlite::Statement& row) {
            state.facts.insert_or_assign(row.text(0), row.text(1));
        });
        for (auto* read : {&vms, &operations, &images, &events, &subjects, &keys, &facts})
            if (!*read) return base::fail(std::move(*read).error());
        return state;
    }

    Result<void> commit(const Changes& changes) {
        auto transaction = sqlite::Transaction::begin(database_);
        if (!transaction) return base::fail(std::move(transaction).error());
        for (const auto& change : changes) {
            auto done = std::visit([this](const auto& what) { return apply(what); }, change);
            if (!done) return done;
        }
        return transaction->commit();
    }

    Result<void> checkpoint() {
        auto moved = database_.first_text("PRAGMA wal_checkpoint(TRUNCATE)");
        if (!moved) return base::fail(std::move(moved).error());
        return {};
    }

private:
    template <class F>
    Result<void> each(std::string_view sql, F take) {
        auto statement = database_.prepare(sql);
        if (!statement) return base::fail(std::move(statement).error());
        for (;;) {
            auto row = statement->step();
            if (!row) return base::fail(std::move(row).error());
            if (!*row) return {};
            take(*statement);
        }
    }

    Result<void> apply(const VmRow& row) {
        auto put = statements_.run(Statement::put_vm, row.id, row.name, row.document);
        if (!put && put.error().code == Errc::already_exists)
            put.error().detail = "the name '" + row.name + "' is taken";
        return put;
    }
    Result<void> apply(const UpdateVm& update) {
        return statements_.run(Statement::update_vm, update.document, update.id);
    }
    Result<void> apply(const OperationRow& row) {
        return statements_.run(Statement::put_operation, row.id, row.state, row.created_ms, row.finished_ms,
                               row.document);
    }
    Result<void> apply(const ImageRow& row) { return statements_.run(Statement::put_image, row.name, row.document); }
    Result<void> apply(const EraseVm& erase) { return statements_.run(Statement::erase_vm, erase.id); }
    Result<void> apply(const EraseImage& erase) { return statements_.run(Statement::erase_image, erase.name); }
    Result<void> apply(const PruneOperations& prune) {
        return statements_.run(Statement::prune_operations, prune.finished_before_ms, std::int64_t{prune.keep});
    }
    Result<void> apply(const EventRow& row) {
        auto put = statements_.run(Statement::put_event, static_cast<std::int64_t>(row.id), row.document);
        if (!put || row.subject.empty()) return put;
        if (row.version.empty()) return statements_.run(Statement::erase_subject, row.subject);
        return statements_.run(Statement::put_subject, row.subject, row.version);
    }
    Result<void> apply(const PruneEvents& prune) {
        return statements_.run(Statement::prune_events, std::int64_t{prune.keep});
    }
    Result<void> apply(const ForgetSubject& forget) {
        return statements_.run(Statement::erase_subject, forget.subject);
    }
    Result<void> apply(const KeyRow& row) {
        return statements_.run(Statement::put_key, row.key, row.fingerprint, row.operation, row.created_ms);
    }
    Result<void> apply(const PruneKeys& prune) {
        return statements_.run(Statement::prune_keys, prune.created_before_ms, std::int64_t{prune.keep});
    }
    Result<void> apply(const FactRow& row) { return statements_.run(Statement::put_fact, row.name, row.value); }

    sqlite::Database database_;
    Statements statements_;  // dies first
};

class SqliteStore final : public StateStore {
public:
    SqliteStore(std::unique_ptr<Tables> tables, base::Log& log)
        : log_(log), tables_(std::move(tables)), pool_("store", 1) {}

    boost::asio::awaitable<Result<StoredState>> load() override {
        auto job = [this]() -> Result<StoredState> {
            if (!tables_) return closed();
            return tables_->load();
        };
        co_return co_await pool_.run(std::move(job));
    }

    boost::asio::awaitable<Result<void>> commit(Changes changes) override {
        auto job = [this, &changes]() -> Result<void> {
            if (!tables_) return closed();
            return tables_->commit(changes);
        };
        co_return co_await pool_.run(std::move(job));
    }

    boost::asio::awaitable<Result<void>> back_up() override { co_return Result<void>{}; }
    StoreHealth health() const override { return {}; }

    boost::asio::awaitable<void> close() override {
        auto job = [this]() -> Result<void> {
            if (!tables_) return {};
            auto moved = tables_->checkpoint();
            tables_.reset();
            return moved;
        };
        const auto moved = co_await pool_.run(std::move(job));
        // Nothing is lost: what is in the log is read from there at the next start.
        if (!moved) log_.warn("the state database could not be checkpointed", {{"error", moved.error().detail}});
    }

private:
    static std::unexpected<base::Error> closed() { return base::fail(Errc::io_error, "the state database is closed"); }

    base::Log& log_;
    std::unique_ptr<Tables> tables_;  // the pool's thread only
    WorkerPool pool_;                 // last: joins before the tables go
};

}  // namespace

Result<std::unique_ptr<StateStore>> open_sqlite_store(const std::string& path, base::Log& log) {
    auto database = open_database(path, log);
    if (!database) return base::fail(std::move(database).error());
    auto statements = Statements::prepare(*database);
    if (!statements) return base::fail(std::move(statements).error());
    auto tables = std::make_unique<Tables>(std::move(*database), std::move(*statements));
    return std::make_unique<SqliteStore>(std::move(tables), log);
}

}  // namespace ghost::storage
