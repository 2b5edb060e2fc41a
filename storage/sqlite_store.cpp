#include "storage/sqlite_store.hpp"

#include "storage/sqlite.hpp"
#include "storage/worker_pool.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <optional>

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

struct Statements {
    sqlite::Statement put_vm, update_vm, put_operation, put_image, erase_vm, erase_image, prune;

    static Result<Statements> prepare(sqlite::Database& database) {
        auto put_vm = database.prepare(
            "INSERT INTO vms(id, name, document) VALUES(?, ?, ?) "
            "ON CONFLICT(id) DO UPDATE SET name = excluded.name, document = excluded.document");
        auto update_vm = database.prepare("UPDATE vms SET document = ? WHERE id = ?");
        auto put_operation = database.prepare(
            "INSERT INTO operations(id, state, created_ms, finished_ms, document) VALUES(?, ?, ?, ?, ?) "
            "ON CONFLICT(id) DO UPDATE SET state = excluded.state, created_ms = excluded.created_ms, "
            "finished_ms = excluded.finished_ms, document = excluded.document");
        auto put_image = database.prepare(
            "INSERT INTO images(name, document) VALUES(?, ?) "
            "ON CONFLICT(name) DO UPDATE SET document = excluded.document");
        auto erase_vm = database.prepare("DELETE FROM vms WHERE id = ?");
        auto erase_image = database.prepare("DELETE FROM images WHERE name = ?");
        auto prune = database.prepare(
            "DELETE FROM operations WHERE finished_ms IS NOT NULL AND (finished_ms < ? OR id IN "
            "(SELECT id FROM operations WHERE finished_ms IS NOT NULL ORDER BY created_ms DESC, id DESC "
            "LIMIT -1 OFFSET ?))");
        for (auto* statement : {&put_vm, &update_vm, &put_operation, &put_image, &erase_vm, &erase_image, &prune})
            if (!*statement) return base::fail(std::move(*statement).error());
        return Statements{std::move(*put_vm),    std::move(*update_vm), std::move(*put_operation),
                          std::move(*put_image), std::move(*erase_vm),  std::move(*erase_image),
                          std::move(*prune)};
    }
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
        for (auto* read : {&vms, &operations, &images})
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
        statements_.put_vm.bind(1, row.id);
        statements_.put_vm.bind(2, row.name);
        statements_.put_vm.bind(3, row.document);
        auto put = statements_.put_vm.run();
        if (!put && put.error().code == Errc::already_exists)
            put.error().detail = "the name '" + row.name + "' is taken";
        return put;
    }
    Result<void> apply(const UpdateVm& update) {
        statements_.update_vm.bind(1, update.document);
        statements_.update_vm.bind(2, update.id);
        return statements_.update_vm.run();
    }
    Result<void> apply(const OperationRow& row) {
        auto& put = statements_.put_operation;
        put.bind(1, row.id);
        put.bind(2, row.state);
        put.bind(3, row.created_ms);
        put.bind(4, row.finished_ms);
        put.bind(5, row.document);
        return put.run();
    }
    Result<void> apply(const ImageRow& row) {
        statements_.put_image.bind(1, row.name);
        statements_.put_image.bind(2, row.document);
        return statements_.put_image.run();
    }
    Result<void> apply(const EraseVm& erase) {
        statements_.erase_vm.bind(1, erase.id);
        return statements_.erase_vm.run();
    }
    Result<void> apply(const EraseImage& erase) {
        statements_.erase_image.bind(1, erase.name);
        return statements_.erase_image.run();
    }
    Result<void> apply(const PruneOperations& prune) {
        statements_.prune.bind(1, prune.finished_before_ms);
        statements_.prune.bind(2, static_cast<std::int64_t>(prune.keep));
        return statements_.prune.run();
    }

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
