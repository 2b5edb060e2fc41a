#include "storage/sqlite.hpp"

#include <fmt/format.h>

#include <sys/statvfs.h>

#include <cerrno>

namespace ghost::storage::sqlite {
namespace {

using base::Errc;
using base::Result;

bool is_real(sqlite3* database) {
    sqlite3_vfs* vfs = nullptr;
    return sqlite3_file_control(database, "main", SQLITE_FCNTL_VFS_POINTER, static_cast<void*>(&vfs)) == SQLITE_OK &&
           vfs == sqlite3_vfs_find(nullptr);
}

}  // namespace

base::Error last_error(sqlite3* database, std::string_view what) {
    const auto code = sqlite3_errcode(database);
    const auto extended = sqlite3_extended_errcode(database);
    base::Error error{Errc::io_error, fmt::format("{}: {} (SQLite {})", what, sqlite3_errmsg(database), extended)};
    if (extended == SQLITE_CONSTRAINT_UNIQUE) error.code = Errc::already_exists;
    // Of files that are memory to SQLite (the log's index) it says only that they could not grow.
    const auto number = sqlite3_system_errno(database);
    const bool no_space = (code & 0xff) == SQLITE_IOERR && (number == ENOSPC || number == EDQUOT);
    if (code == SQLITE_FULL || no_space) {
        error.code = Errc::insufficient_storage;
        struct statvfs space = {};
        const auto* const file = sqlite3_db_filename(database, "main");
        if (file != nullptr && is_real(database) && ::statvfs(file, &space) == 0)
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

Result<Database> Database::open(const std::string& path, Opening how) {
    const int access = how.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    sqlite3* handle = nullptr;
    const auto code = sqlite3_open_v2(path.c_str(), &handle, access | SQLITE_OPEN_NOMUTEX, how.vfs);
    Database database{handle, path};
    if (handle == nullptr) return base::fail(Errc::io_error, path + ": out of memory");
    if (code != SQLITE_OK) return base::fail(last_error(handle, "cannot open " + path));
    sqlite3_extended_result_codes(handle, 1);
    return database;
}

bool Database::damaged() const noexcept {
    const auto code = sqlite3_errcode(handle()) & 0xff;
    return code == SQLITE_NOTADB || code == SQLITE_CORRUPT;
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
    if (open()) static_cast<void>(database_->execute("ROLLBACK"));
}

bool Transaction::open() const noexcept {
    return database_ != nullptr && sqlite3_get_autocommit(database_->handle()) == 0;
}

Result<void> Transaction::commit() {
    auto committed = database_->execute("COMMIT");
    if (committed) database_ = nullptr;
    return committed;
}

}  // namespace ghost::storage::sqlite
