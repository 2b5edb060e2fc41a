// The rows of the state database: read whole, written in transactions. One thread at a time.
#pragma once

#include "storage/sqlite.hpp"
#include "storage/state_store.hpp"

#include <map>
#include <memory>
#include <span>

namespace ghost::storage {

// The few statements that write, prepared once.
class Statements;

// A transaction that waits, and how it went.
struct Commit {
    Changes changes;
    base::Result<void> result = base::fail(base::Errc::io_error, "not committed");
    bool over = false;
};

class Tables {
public:
    // Of a database of the newest version, which may be in a transaction.
    [[nodiscard]] static base::Result<Tables> prepare(std::shared_ptr<sqlite::Database> database);
    Tables(Tables&&) noexcept;
    Tables& operator=(Tables&&) = delete;
    ~Tables();

    [[nodiscard]] base::Result<StoredState> load();
    [[nodiscard]] base::Result<void> commit(const Changes& changes);
    // Writes `changes` within the caller's transaction.
    [[nodiscard]] base::Result<void> apply(const Changes& changes);
    // All in one transaction, each whole or not at all, for one wait for the disk. False: nothing of any was written.
    [[nodiscard]] bool commit_together(std::span<const std::shared_ptr<Commit>> commits);

    // Moves the log into the database, so that it starts anew: in the room it has, or, to end with, without any.
    // False: readers elsewhere hold it up.
    enum class Log : std::uint8_t { restart, truncate };
    [[nodiscard]] base::Result<bool> checkpoint(Log then);

    [[nodiscard]] sqlite::Database& database() noexcept { return *database_; }

private:
    Tables(std::shared_ptr<sqlite::Database> database, std::unique_ptr<Statements> statements);

    std::shared_ptr<sqlite::Database> database_;
    std::unique_ptr<Statements> statements_;  // dies first
};

// What is in `database`, of whichever version; tables it doesn't have yet are empty.
[[nodiscard]] base::Result<StoredState> read_state(sqlite::Database& database);

}  // namespace ghost::storage
