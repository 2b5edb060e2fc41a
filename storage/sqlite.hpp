// SQLite's handles with owners. One thread at a time; errors are values.
#pragma once

#include "base/error.hpp"

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace ghost::storage::sqlite {

// What SQLite says about its last failure. Errors: insufficient_storage (disk full), already_exists (a UNIQUE
// constraint), io_error.
[[nodiscard]] base::Error last_error(sqlite3* database, std::string_view what);

// A prepared statement: bind from 1, step, read columns from 0, reset, again.
class Statement {
public:
    // Text is not copied: it must live until the next reset().
    void bind(int index, std::string_view text);
    void bind(int index, std::int64_t number);
    void bind(int index, std::optional<std::int64_t> number);

    [[nodiscard]] base::Result<bool> step();  // true: a row
    [[nodiscard]] base::Result<void> run();   // to its end, then reset
    void reset();

    [[nodiscard]] std::string text(int column) const;
    [[nodiscard]] std::int64_t number(int column) const;
    [[nodiscard]] std::optional<std::int64_t> maybe_number(int column) const;

private:
    friend class Database;
    struct Finalize {
        void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
    };
    explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}
    std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

struct Opening {
    const char* vfs = nullptr;  // SQLite's name of the file system; null: the real one
    bool read_only = false;
};

class Database {
public:
    // Opens or makes the file.
    [[nodiscard]] static base::Result<Database> open(const std::string& path, Opening how = {});

    [[nodiscard]] base::Result<void> execute(const std::string& sql);  // one or more statements without rows
    [[nodiscard]] base::Result<Statement> prepare(std::string_view sql);
    [[nodiscard]] base::Result<std::string> first_text(std::string_view sql);  // the first column of the first row
    // Whether the last failure was that the file is damaged, or no database at all.
    [[nodiscard]] bool damaged() const noexcept;
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] sqlite3* handle() const noexcept { return database_.get(); }

private:
    struct Close {
        void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
    };
    Database(sqlite3* database, std::string path) : database_(database), path_(std::move(path)) {}
    std::unique_ptr<sqlite3, Close> database_;
    std::string path_;
};

// BEGIN IMMEDIATE; what wasn't committed is rolled back.
class Transaction {
public:
    [[nodiscard]] static base::Result<Transaction> begin(Database& database);
    Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
    Transaction& operator=(Transaction&&) = delete;
    ~Transaction();

    [[nodiscard]] base::Result<void> commit();
    // False after an error for which SQLite has rolled back by itself.
    [[nodiscard]] bool open() const noexcept;

private:
    explicit Transaction(Database& database) : database_(&database) {}
    Database* database_;  // null: over
};

}  // namespace ghost::storage::sqlite
