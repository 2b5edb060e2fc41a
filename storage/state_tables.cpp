#include "storage/state_tables.hpp"

#include "storage/state_schema.hpp"

#include <array>
#include <utility>

namespace ghost::storage {
namespace {

using base::Errc;
using base::Result;

enum class Write : std::uint8_t {
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
    put_command,
    prune_commands,
    put_outbox,
    prune_outbox,
};

constexpr std::pair<Write, std::string_view> texts[] = {
    {Write::put_vm,
     "INSERT INTO vms(id, name, document) VALUES(?, ?, ?) "
     "ON CONFLICT(id) DO UPDATE SET name = excluded.name, document = excluded.document"},
    {Write::update_vm, "UPDATE vms SET document = ? WHERE id = ?"},
    {Write::put_operation,
     "INSERT INTO operations(id, state, created_ms, finished_ms, document) VALUES(?, ?, ?, ?, ?) "
     "ON CONFLICT(id) DO UPDATE SET state = excluded.state, created_ms = excluded.created_ms, "
     "finished_ms = excluded.finished_ms, document = excluded.document"},
    {Write::put_image,
     "INSERT INTO images(name, document) VALUES(?, ?) "
     "ON CONFLICT(name) DO UPDATE SET document = excluded.document"},
    {Write::erase_vm, "DELETE FROM vms WHERE id = ?"},
    {Write::erase_image, "DELETE FROM images WHERE name = ?"},
    {Write::prune_operations,
     "DELETE FROM operations WHERE finished_ms IS NOT NULL AND (finished_ms < ? OR id IN "
     "(SELECT id FROM operations WHERE finished_ms IS NOT NULL ORDER BY created_ms DESC, id DESC "
     "LIMIT -1 OFFSET ?))"},
    {Write::put_event, "INSERT OR REPLACE INTO events(id, document) VALUES(?, ?)"},
    {Write::put_subject,
     "INSERT INTO subjects(subject, version) VALUES(?, ?) "
     "ON CONFLICT(subject) DO UPDATE SET version = excluded.version"},
    {Write::erase_subject, "DELETE FROM subjects WHERE subject = ?"},
    {Write::prune_events, "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id DESC LIMIT -1 OFFSET ?)"},
    {Write::put_key,
     "INSERT INTO keys(key, fingerprint, operation, created_ms) VALUES(?, ?, ?, ?) "
     "ON CONFLICT(key) DO UPDATE SET fingerprint = excluded.fingerprint, operation = excluded.operation, "
     "created_ms = excluded.created_ms"},
    {Write::prune_keys,
     "DELETE FROM keys WHERE created_ms < ? OR key IN "
     "(SELECT key FROM keys ORDER BY created_ms DESC, key DESC LIMIT -1 OFFSET ?)"},
    {Write::put_fact,
     "INSERT INTO facts(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value"},
    {Write::put_command,
     "INSERT INTO commands(id, received_ms, confirmed, document) VALUES(?, ?, ?, ?) "
     "ON CONFLICT(id) DO UPDATE SET received_ms = excluded.received_ms, confirmed = excluded.confirmed, "
     "document = excluded.document"},
    {Write::prune_commands,
     "DELETE FROM commands WHERE confirmed AND (received_ms < ? OR id IN "
     "(SELECT id FROM commands WHERE confirmed ORDER BY received_ms DESC, id DESC LIMIT -1 OFFSET ?))"},
    {Write::put_outbox, "INSERT OR REPLACE INTO outbox(rev, at_ms, document) VALUES(?, ?, ?)"},
    {Write::prune_outbox, "DELETE FROM outbox WHERE rev <= ?"},
};

template <class F>
Result<void> each(sqlite::Database& database, std::string_view sql, F take) {
    auto statement = database.prepare(sql);
    if (!statement) return base::fail(std::move(statement).error());
    for (;;) {
        auto row = statement->step();
        if (!row) return base::fail(std::move(row).error());
        if (!*row) return {};
        take(*statement);
    }
}

}  // namespace

class Statements {
public:
    static Result<std::unique_ptr<Statements>> prepare(sqlite::Database& database) {
        auto out = std::make_unique<Statements>();
        for (const auto& [which, sql] : texts) {
            auto statement = database.prepare(sql);
            if (!statement) return base::fail(std::move(statement).error());
            out->made_.emplace(which, std::move(*statement));
        }
        return out;
    }

    Result<void> apply(const VmRow& row) {
        auto put = run(Write::put_vm, row.id, row.name, row.document);
        if (!put && put.error().code == Errc::already_exists)
            put.error().detail = "the name '" + row.name + "' is taken";
        return put;
    }
    Result<void> apply(const UpdateVm& update) { return run(Write::update_vm, update.document, update.id); }
    Result<void> apply(const OperationRow& row) {
        return run(Write::put_operation, row.id, row.state, row.created_ms, row.finished_ms, row.document);
    }
    Result<void> apply(const ImageRow& row) { return run(Write::put_image, row.name, row.document); }
    Result<void> apply(const EraseVm& erase) { return run(Write::erase_vm, erase.id); }
    Result<void> apply(const EraseImage& erase) { return run(Write::erase_image, erase.name); }
    Result<void> apply(const PruneOperations& prune) {
        return run(Write::prune_operations, prune.finished_before_ms, std::int64_t{prune.keep});
    }
    Result<void> apply(const EventRow& row) {
        auto put = run(Write::put_event, static_cast<std::int64_t>(row.id), row.document);
        if (!put || row.subject.empty()) return put;
        if (row.version.empty()) return run(Write::erase_subject, row.subject);
        return run(Write::put_subject, row.subject, row.version);
    }
    Result<void> apply(const PruneEvents& prune) { return run(Write::prune_events, std::int64_t{prune.keep}); }
    Result<void> apply(const ForgetSubject& forget) { return run(Write::erase_subject, forget.subject); }
    Result<void> apply(const KeyRow& row) {
        return run(Write::put_key, row.key, row.fingerprint, row.operation, row.created_ms);
    }
    Result<void> apply(const PruneKeys& prune) {
        return run(Write::prune_keys, prune.created_before_ms, std::int64_t{prune.keep});
    }
    Result<void> apply(const FactRow& row) { return run(Write::put_fact, row.name, row.value); }
    Result<void> apply(const CommandRow& row) {
        return run(Write::put_command, row.id, row.received_ms, std::int64_t{row.confirmed}, row.document);
    }
    Result<void> apply(const PruneCommands& prune) {
        return run(Write::prune_commands, prune.received_before_ms, std::int64_t{prune.keep});
    }
    Result<void> apply(const OutboxRow& row) {
        return run(Write::put_outbox, static_cast<std::int64_t>(row.rev), row.at_ms, row.document);
    }
    Result<void> apply(const PruneOutbox& prune) {
        return run(Write::prune_outbox, static_cast<std::int64_t>(prune.up_to_rev));
    }

private:
    // Binds `values` in their order and runs it.
    template <class... V>
    Result<void> run(Write which, const V&... values) {
        auto& statement = made_.at(which);
        int index = 0;
        (statement.bind(++index, values), ...);
        return statement.run();
    }

    std::map<Write, sqlite::Statement> made_;
};

Result<StoredState> read_state(sqlite::Database& database) {
    auto version = version_of(database);
    if (!version) return base::fail(std::move(version).error());
    StoredState state;
    const auto read = [&](int since, std::string_view sql, auto take) -> Result<void> {
        if (*version < since) return {};
        return each(database, sql, take);
    };
    auto vms = read(1, "SELECT id, name, document FROM vms ORDER BY id", [&](const sqlite::Statement& row) {
        state.vms.push_back({row.text(0), row.text(1), row.text(2)});
    });
    auto operations = read(
        1, "SELECT id, state, created_ms, finished_ms, document FROM operations ORDER BY created_ms, id",
        [&](const sqlite::Statement& row) {
            state.operations.push_back({row.text(0), row.text(1), row.number(2), row.maybe_number(3), row.text(4)});
        });
    auto images = read(1, "SELECT name, document FROM images ORDER BY name",
                       [&](const sqlite::Statement& row) { state.images.push_back({row.text(0), row.text(1)}); });
    auto events = read(2, "SELECT id, document FROM events ORDER BY id", [&](const sqlite::Statement& row) {
        state.events.push_back({static_cast<std::uint64_t>(row.number(0)), "", "", row.text(1)});
    });
    auto subjects = read(2, "SELECT subject, version FROM subjects", [&](const sqlite::Statement& row) {
        state.subjects.insert_or_assign(row.text(0), row.text(1));
    });
    auto keys = read(2, "SELECT key, fingerprint, operation, created_ms FROM keys ORDER BY created_ms, key",
                     [&](const sqlite::Statement& row) {
                         state.keys.push_back({row.text(0), row.text(1), row.text(2), row.number(3)});
                     });
    auto facts = read(2, "SELECT name, value FROM facts",
                      [&](const sqlite::Statement& row) { state.facts.insert_or_assign(row.text(0), row.text(1)); });
    auto commands = read(3, "SELECT id, received_ms, confirmed, document FROM commands ORDER BY received_ms, id",
                         [&](const sqlite::Statement& row) {
                             state.commands.push_back({row.text(0), row.number(1), row.number(2) != 0, row.text(3)});
                         });
    auto outbox = read(3, "SELECT rev, at_ms, document FROM outbox ORDER BY rev", [&](const sqlite::Statement& row) {
        state.outbox.push_back({static_cast<std::uint64_t>(row.number(0)), row.number(1), row.text(2)});
    });
    for (auto* done : {&vms, &operations, &images, &events, &subjects, &keys, &facts, &commands, &outbox})
        if (!*done) return base::fail(std::move(*done).error());
    return state;
}

Tables::Tables(std::shared_ptr<sqlite::Database> database, std::unique_ptr<Statements> statements)
    : database_(std::move(database)), statements_(std::move(statements)) {}
Tables::Tables(Tables&&) noexcept = default;
Tables::~Tables() = default;

Result<Tables> Tables::prepare(std::shared_ptr<sqlite::Database> database) {
    auto statements = Statements::prepare(*database);
    if (!statements) return base::fail(std::move(statements).error());
    return Tables{std::move(database), std::move(*statements)};
}

Result<StoredState> Tables::load() { return read_state(*database_); }

Result<void> Tables::apply(const Changes& changes) {
    for (const auto& change : changes) {
        auto done = std::visit([this](const auto& what) { return statements_->apply(what); }, change);
        if (!done) return done;
    }
    return {};
}

Result<void> Tables::commit(const Changes& changes) {
    auto transaction = sqlite::Transaction::begin(*database_);
    if (!transaction) return base::fail(std::move(transaction).error());
    if (auto done = apply(changes); !done) return done;
    return transaction->commit();
}

bool Tables::commit_together(std::span<const std::shared_ptr<Commit>> commits) {
    auto transaction = sqlite::Transaction::begin(*database_);
    if (!transaction) return false;
    std::vector<Result<void>> results;
    for (const auto& commit : commits) {
        if (!database_->execute("SAVEPOINT one")) return false;
        auto done = apply(commit->changes);
        // After some errors (a full disk) SQLite has rolled back everything by itself.
        if (!done && !transaction->open()) return false;
        if (!database_->execute(done ? "RELEASE one" : "ROLLBACK TO one; RELEASE one")) return false;
        results.push_back(std::move(done));
    }
    if (!transaction->commit()) return false;
    for (std::size_t i = 0; i < commits.size(); ++i) commits[i]->result = std::move(results[i]);
    return true;
}

Result<bool> Tables::checkpoint(Log then) {
    auto statement = database_->prepare(then == Log::truncate ? "PRAGMA wal_checkpoint(TRUNCATE)"
                                                              : "PRAGMA wal_checkpoint(RESTART)");
    if (!statement) return base::fail(std::move(statement).error());
    auto row = statement->step();
    if (!row) return base::fail(std::move(row).error());
    return *row && statement->number(0) == 0;
}

}  // namespace ghost::storage
