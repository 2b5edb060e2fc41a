#include "storage/sqlite.hpp"

#include "base/descriptor.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>

namespace ghost::storage::sqlite {
namespace {

using base::Errc;
using base::Result;

// SQLite's own side files take the mode of the database, so it is set before SQLite sees the file.
Result<void> make_private(const std::string& path) {
    const base::Descriptor file{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    if (!file) return base::fail(base::errno_error(errno, "cannot open " + path));
    if (::fchmod(file.get(), 0600) != 0) return base::fail(base::errno_error(errno, "cannot set the mode of " + path));
    return {};
}

}  // namespace

base::Error last_error(sqlite3* database, std::string_view what) {
    const auto code = sqlite3_errcode(database);
    const auto extended = sqlite3_extended_errcode(database);
    base::Error error{Errc::io_error, fmt::format("{}: {} (SQLite {})", what, sqlite3_errmsg(database), extended)};
    if (extended == SQLITE_CONSTRAINT_UNIQUE) error.code = Errc::already_exists;
    const bool no_space = extended == SQLITE_IOERR_WRITE && sqlite3_system_errno(database) == ENOSPC;
    if (code == SQLITE_FULL || no_space) {
        error.code = Errc::insufficient_storage;
        struct statvfs space = {};
        const auto* const file = sqlite3_db_filename(database, "main");
        if (file != nullptr && ::statvfs(file, &space) == 0)
            base::add_disk_facts(error, std::nullopt, std::uint64_t{space.f_bavail} * space.f_frsize);
    }
    return error;
}

void Statement::bind(int index, std::string_view text) {
    // A view of nothing would be NULL.
    const char* const data = text.data() == nullptr ? "" : text.data();
    sqlite3_bind_text64(statement_.get(), index, data, text.size(), SQLITE_STATIC, SQLITE_UTF8);
}

void Statement::bind(int index, std::int64_t number) { sqlite3_bind_int64(statement_.get(), index, number); }

void Statement::bind(int index, std::optional<std::int64_t> number) {
    if (number)
        bind(index, *number);
    else
        sqlite3_bind_null(statement_.get(), index);
}

Result<bool> Statement::step() {
    switch (sqlite3_step(statement_.get())) {
        case SQLITE_ROW: return true;
        case SQLITE_DONE: return false;
        default: return base::fail(last_error(sqlite3_db_handle(statement_.get()), "the state database"));
    }
}

Result<void> Statement::run() {
    for (;;) {
        auto row = step();
        if (row && *row) continue;
        reset();
        if (!row) return base::fail(std::move(row).error());
        return {};
    }
}

void Statement::reset() {
    sqlite3_reset(statement_.get());
    sqlite3_clear_bindings(statement_.get());
}

std::string Statement::text(int column) const {
    const auto* const bytes = sqlite3_column_blob(statement_.get(), column);
    const auto length = sqlite3_column_bytes(statement_.get(), column);
    return bytes == nullptr ? std::string{}
                            : std::string{static_cast<const char*>(bytes), static_cast<std::size_t>(length)};
}

std::int64_t Statement::number(int column) const { return sqlite3_column_int64(statement_.get(), column); }

std::optional<std::int64_t> Statement::maybe_number(int column) const {
    if (sqlite3_column_type(statement_.get(), column) == SQLITE_NULL) return std::nullopt;
    return number(column);
}

Result<Database> Database::open(const std::string& path) {
    if (auto made = make_private(path); !made) return base::fail(std::move(made).error());
    sqlite3* handle = nullptr;
    const auto code = sqlite3_open_v2(path.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
    Database database{handle, path};
    if (handle == nullptr) return base::fail(Errc::io_error, path + ": out of memory");
    if (code != SQLITE_OK) return base::fail(last_error(handle, "cannot open " + path));
    sqlite3_extended_result_codes(handle, 1);
    return database;
}

Result<void> Database::execute(const std::string& sql) {
    if (sqlite3_exec(handle(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
        return base::fail(last_error(handle(), path_));
    return {};
}

Result<Statement> Database::prepare(std::string_view sql) {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v3(handle(), sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &statement,
                           nullptr) != SQLITE_OK)
        return base::fail(last_error(handle(), path_));
    return Statement{statement};
}

Result<std::string> Database::first_text(std::string_view sql) {
    auto statement = prepare(sql);
    if (!statement) return base::fail(std::move(statement).error());
    auto row = statement->step();
    if (!row) return base::fail(std::move(row).error());
    return *row ? statement->text(0) : std::string{};
}

Result<Transaction> Transaction::begin(Database& database) {
    if (auto begun = database.execute("BEGIN IMMEDIATE"); !begun) return base::fail(std::move(begun).error());
    return Transaction{database};
}

Transaction::~Transaction() {
    // SQLite rolls back by itself after some errors (a full disk); then there is nothing to do.
    if (database_ != nullptr && sqlite3_get_autocommit(database_->handle()) == 0)
        static_cast<void>(database_->execute("ROLLBACK"));
}

Result<void> Transaction::commit() {
    auto committed = database_->execute("COMMIT");
    if (committed) database_ = nullptr;
    return committed;
}

}  // namespace ghost::storage::sqlite
