#include "storage/database_files.hpp"

#include "base/descriptor.hpp"
#include "storage/copy_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace ghost::storage {
namespace {

using base::Descriptor;
using base::Result;

std::filesystem::path folder_of(const std::string& path) {
    auto folder = std::filesystem::path{path}.parent_path();
    return folder.empty() ? std::filesystem::path{"."} : folder;
}

Result<Descriptor> open_private(const std::string& path) {
    Descriptor file{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    if (!file) return base::fail(base::errno_error(errno, "cannot open " + path));
    if (::fchmod(file.get(), 0600) != 0) return base::fail(base::errno_error(errno, "cannot set the mode of " + path));
    return file;
}

}  // namespace

Result<std::optional<DatabaseFile>> LocalDatabaseFiles::find(const std::string& path) {
    struct stat found = {};
    if (::stat(path.c_str(), &found) != 0) {
        if (errno == ENOENT) return std::nullopt;
        return base::fail(base::errno_error(errno, "cannot inspect " + path));
    }
    DatabaseFile file{static_cast<std::uint64_t>(found.st_size)};
    file.whole = static_cast<std::uint64_t>(found.st_blocks) * 512 >= file.bytes;
    file.modified_ms = std::int64_t{found.st_mtim.tv_sec} * 1000 + found.st_mtim.tv_nsec / 1'000'000;
    return file;
}

Result<std::vector<std::string>> LocalDatabaseFiles::beside(const std::string& path) {
    std::vector<std::string> names;
    std::error_code ec;
    for (std::filesystem::directory_iterator it{folder_of(path), ec}, end; !ec && it != end; it.increment(ec))
        names.push_back(it->path().filename().string());
    if (ec == std::errc::no_such_file_or_directory) return names;
    if (ec) return base::fail(base::errno_error(ec.value(), "cannot list " + folder_of(path).string()));
    return names;
}

Result<void> LocalDatabaseFiles::make_private(const std::string& path) {
    auto file = open_private(path);
    if (!file) return base::fail(std::move(file).error());
    return {};
}

Result<void> LocalDatabaseFiles::allocate(const std::string& path, std::uint64_t bytes) {
    auto file = open_private(path);
    if (!file) return base::fail(std::move(file).error());
    int fault = ::posix_fallocate(file->get(), 0, static_cast<off_t>(bytes));
    if (fault == 0 && ::fsync(file->get()) != 0) fault = errno;
    if (fault == 0) return sync_directory_of(path);
    ::unlink(path.c_str());
    return base::fail(base::errno_error(fault, "cannot set room aside in " + path));
}

Result<void> LocalDatabaseFiles::rename(const std::string& from, const std::string& to) {
    if (std::rename(from.c_str(), to.c_str()) == 0) return {};
    return base::fail(base::errno_error(errno, "cannot rename " + from + " to " + to));
}

Result<void> LocalDatabaseFiles::remove(const std::string& path) {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    return base::fail(base::errno_error(errno, "cannot remove " + path));
}

Result<void> LocalDatabaseFiles::sync(const std::string& path) {
    const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!file) return base::fail(base::errno_error(errno, "cannot open " + path));
    if (::fsync(file.get()) != 0) return base::fail(base::errno_error(errno, "cannot sync " + path));
    return {};
}

Result<void> LocalDatabaseFiles::sync_directory_of(const std::string& path) { return storage::sync_directory_of(path); }

Result<std::uint64_t> LocalDatabaseFiles::free_bytes(const std::string& path) {
    struct statvfs space = {};
    const auto folder = folder_of(path);
    if (::statvfs(folder.c_str(), &space) != 0)
        return base::fail(base::errno_error(errno, "cannot inspect the file system of " + folder.string()));
    return std::uint64_t{space.f_bavail} * space.f_frsize;
}

}  // namespace ghost::storage
