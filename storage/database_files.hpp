// What the care of the database does to files around SQLite, as a seam: a simulated machine has its own disk.
#pragma once

#include "base/error.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ghost::storage {

struct DatabaseFile {
    std::uint64_t bytes = 0;
    bool whole = true;  // has room allocated for all its bytes
    std::int64_t modified_ms = 0;
};

// Blocking; one thread at a time. Errors: insufficient_storage, io_error.
class DatabaseFiles {
public:
    virtual ~DatabaseFiles() = default;
    // SQLite's name of the file system that holds these files; null: the real one.
    [[nodiscard]] virtual const char* vfs() const noexcept = 0;

    [[nodiscard]] virtual base::Result<std::optional<DatabaseFile>> find(const std::string& path) = 0;
    // Names of the files beside `path`, itself among them.
    [[nodiscard]] virtual base::Result<std::vector<std::string>> beside(const std::string& path) = 0;
    // Makes an empty file where there is none; mode 0600 in any case.
    [[nodiscard]] virtual base::Result<void> make_private(const std::string& path) = 0;
    // A private file of `bytes` for which the disk has set room aside, synced.
    [[nodiscard]] virtual base::Result<void> allocate(const std::string& path, std::uint64_t bytes) = 0;
    [[nodiscard]] virtual base::Result<void> rename(const std::string& from, const std::string& to) = 0;
    [[nodiscard]] virtual base::Result<void> remove(const std::string& path) = 0;  // no fault if it isn't there
    [[nodiscard]] virtual base::Result<void> sync(const std::string& path) = 0;
    [[nodiscard]] virtual base::Result<void> sync_directory_of(const std::string& path) = 0;
    [[nodiscard]] virtual base::Result<std::uint64_t> free_bytes(const std::string& path) = 0;
};

// The machine's.
class LocalDatabaseFiles final : public DatabaseFiles {
public:
    const char* vfs() const noexcept override { return nullptr; }
    base::Result<std::optional<DatabaseFile>> find(const std::string& path) override;
    base::Result<std::vector<std::string>> beside(const std::string& path) override;
    base::Result<void> make_private(const std::string& path) override;
    base::Result<void> allocate(const std::string& path, std::uint64_t bytes) override;
    base::Result<void> rename(const std::string& from, const std::string& to) override;
    base::Result<void> remove(const std::string& path) override;
    base::Result<void> sync(const std::string& path) override;
    base::Result<void> sync_directory_of(const std::string& path) override;
    base::Result<std::uint64_t> free_bytes(const std::string& path) override;
};

}  // namespace ghost::storage
