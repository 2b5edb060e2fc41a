#include "storage/local_files.hpp"

#include "base/descriptor.hpp"
#include "storage/copy_file.hpp"
#include "storage/local_growing_file.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <utility>

namespace ghost::storage {
namespace {

using base::Descriptor;
using base::Errc;
using base::Result;

auto os_error(int number, const std::string& what) {
    auto error = base::errno_error(number, what);
    if (number == ENOENT) error.code = Errc::not_found;
    return base::fail(std::move(error));
}

Result<std::optional<FileInfo>> stat_now(const std::string& path) {
    struct stat found = {};
    if (::stat(path.c_str(), &found) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
        return os_error(errno, "cannot inspect " + path);
    }
    return FileInfo{static_cast<std::uint64_t>(found.st_size), static_cast<std::uint64_t>(found.st_blocks) * 512,
                    static_cast<unsigned>(found.st_mode) & 07777U, S_ISREG(found.st_mode), S_ISDIR(found.st_mode)};
}

struct Opened {
    Descriptor file;
    std::uint64_t size = 0;  // as it says itself
};

Result<Opened> open_regular(const std::string& path) {
    Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
    if (!file) return os_error(errno, "cannot open " + path);
    struct stat found = {};
    if (::fstat(file.get(), &found) != 0) return os_error(errno, "cannot inspect " + path);
    if (!S_ISREG(found.st_mode)) return base::fail(Errc::io_error, path + " is not a regular file");
    return Opened{std::move(file), static_cast<std::uint64_t>(found.st_size)};
}

// Up to `limit` bytes of a regular file, whatever it says of its size: the kernel's own say 0.
Result<std::string> read_up_to(const std::string& path, std::size_t limit) {
    const auto opened = open_regular(path);
    if (!opened) return base::fail(opened.error());
    const auto& [file, size] = *opened;
    constexpr std::size_t least = 4096;
    const auto expected = static_cast<std::size_t>(size) + 1;  // one more: its end is seen at once
    std::string bytes;
    for (std::size_t length = 0;;) {
        if (length == bytes.size()) bytes.resize(std::min(limit, std::max({expected, least, 2 * length})));
        const auto count = ::read(file.get(), bytes.data() + length, bytes.size() - length);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return os_error(errno, "cannot read " + path);
        length += static_cast<std::size_t>(count);
        if (count > 0 && length < limit) continue;
        bytes.resize(length);
        return bytes;
    }
}

// A file that is cut short meanwhile gives less.
Result<std::string> read_tail_now(const std::string& path, std::size_t limit) {
    const auto opened = open_regular(path);
    if (!opened) return base::fail(opened.error());
    const auto& [file, size] = *opened;
    std::string bytes(static_cast<std::size_t>(std::min<std::uint64_t>(size, limit)), '\0');
    const auto start = size - bytes.size();
    std::size_t length = 0;
    while (length < bytes.size()) {
        const auto count =
            ::pread(file.get(), bytes.data() + length, bytes.size() - length, static_cast<off_t>(start + length));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return os_error(errno, "cannot read " + path);
        if (count == 0) break;
        length += static_cast<std::size_t>(count);
    }
    bytes.resize(length);
    return bytes;
}

Result<std::string> read_now(const std::string& path, std::size_t max_bytes) {
    auto bytes = read_up_to(path, max_bytes + 1);
    if (bytes && bytes->size() > max_bytes)
        return base::fail(Errc::io_error, fmt::format("{} is larger than {} bytes", path, max_bytes));
    return bytes;
}

Result<void> fill(int file, std::string_view bytes, unsigned mode, const std::string& path) {
    if (::fchmod(file, static_cast<mode_t>(mode)) != 0) return os_error(errno, "cannot set the mode of " + path);
    while (!bytes.empty()) {
        const auto count = ::write(file, bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return os_error(errno, "cannot write " + path);
        bytes.remove_prefix(static_cast<std::size_t>(count));
    }
    if (::fsync(file) != 0) return os_error(errno, "cannot sync " + path);
    return {};
}

Result<void> rename_now(const std::string& from, const std::string& to) {
    if (::rename(from.c_str(), to.c_str()) != 0)
        return os_error(errno, fmt::format("cannot rename {} to {}", from, to));
    if (auto synced = sync_directory_of(to); !synced) return synced;
    if (std::filesystem::path{from}.parent_path() == std::filesystem::path{to}.parent_path()) return {};
    return sync_directory_of(from);
}

// Where a write gathers its bytes. One name for each target, so that what a crash left is found again.
std::string temporary_of(const std::string& path) {
    const std::filesystem::path target{path};
    return (target.parent_path() / fmt::format(".{}.new", target.filename().string())).string();
}

Result<void> write_now(const std::string& path, std::string_view bytes, unsigned mode) {
    const auto temporary = temporary_of(path);
    const Descriptor file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (!file) return os_error(errno, "cannot create a file beside " + path);
    auto filled = fill(file.get(), bytes, mode, path);
    if (filled) filled = rename_now(temporary, path);
    if (!filled) ::unlink(temporary.c_str());
    return filled;
}

Result<void> remove_now(const std::string& path) {
    const auto temporary = temporary_of(path);
    if (::unlink(temporary.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR &&
        errno != ENAMETOOLONG)  // for which there can be none
        return os_error(errno, "cannot remove " + temporary);
    if (::unlink(path.c_str()) == 0) return sync_directory_of(path);
    if (errno == ENOENT || errno == ENOTDIR) return {};
    if (errno == EISDIR && ::rmdir(path.c_str()) == 0) return {};
    return os_error(errno, "cannot remove " + path);
}

Result<void> make_directories_now(const std::string& path, unsigned mode) {
    std::filesystem::path at;
    for (const auto& part : std::filesystem::path{path}.lexically_normal()) {
        if (part.empty()) continue;
        at /= part;
        if (::mkdir(at.c_str(), 0700) != 0) {
            if (errno == EEXIST || errno == EISDIR) continue;
            return os_error(errno, "cannot make the directory " + at.string());
        }
        if (::chmod(at.c_str(), static_cast<mode_t>(mode)) != 0)
            return os_error(errno, "cannot set the mode of " + at.string());
        if (auto synced = sync_directory_of(at.string()); !synced) return synced;
    }
    const auto made = stat_now(path);
    if (!made) return base::fail(made.error());
    if (!*made || !(*made)->directory) return base::fail(Errc::io_error, path + " is not a directory");
    return {};
}

Result<std::vector<std::string>> list_now(const std::string& path) {
    struct Close {
        void operator()(DIR* directory) const { ::closedir(directory); }
    };
    const std::unique_ptr<DIR, Close> directory{::opendir(path.c_str())};
    if (!directory) return os_error(errno, "cannot list " + path);
    std::vector<std::string> names;
    for (errno = 0;; errno = 0) {
        const auto* const entry = ::readdir(directory.get());  // NOLINT(concurrency-mt-unsafe): a stream of our own
        if (entry == nullptr) break;
        const std::string_view name{static_cast<const char*>(entry->d_name)};
        if (name != "." && name != "..") names.emplace_back(name);
    }
    if (errno != 0) return os_error(errno, "cannot list " + path);
    std::ranges::sort(names);
    return names;
}

Result<Space> space_now(const std::string& path) {
    struct statvfs found = {};
    struct stat place = {};
    if (::statvfs(path.c_str(), &found) != 0 || ::stat(path.c_str(), &place) != 0)
        return os_error(errno, "cannot inspect the file system of " + path);
    return Space{std::uint64_t{found.f_blocks} * found.f_frsize, std::uint64_t{found.f_bavail} * found.f_frsize,
                 std::uint64_t{place.st_dev}};
}

Result<std::string> resolve_now(const std::string& path) {
    const std::unique_ptr<char, decltype(&std::free)> real{::realpath(path.c_str(), nullptr), &std::free};
    if (!real) {
        const auto number = errno == ENOTDIR ? ENOENT : errno;
        return os_error(number, "cannot resolve " + path);
    }
    return std::string{real.get()};
}

using Report = std::function<void(std::uint64_t done, std::uint64_t total)>;

// For a thread to report to the loop. Posted from one thread, so the last report runs before the coroutine resumes.
Report on_loop(boost::asio::any_io_executor loop, Report report) {
    if (!report) return {};
    return [loop = std::move(loop), shared = std::make_shared<Report>(std::move(report))](std::uint64_t done,
                                                                                          std::uint64_t total) {
        boost::asio::post(loop, [shared, done, total] { (*shared)(done, total); });
    };
}

}  // namespace

Files::Task<std::optional<FileInfo>> LocalFiles::stat(std::string path) {
    auto job = [&path] { return stat_now(path); };
    co_return co_await pool_.run(std::move(job));
}

Files::Task<std::string> LocalFiles::read(std::string path, std::size_t max_bytes) {
    auto job = [&path, max_bytes] { return read_now(path, max_bytes); };
    co_return co_await pool_.run(std::move(job));
}

Files::Task<std::string> LocalFiles::read_head(std::string path, std::size_t bytes) {
    auto job = [&path, bytes] { return read_up_to(path, bytes); };
    co_return co_await pool_.run(std::move(job));
}

Files::Task<std::string> LocalFiles::read_tail(std::string path, std::size_t bytes) {
    auto job = [&path, bytes] { return read_tail_now(path, bytes); };
    co_return co_await pool_.run(std::move(job));
}

Files::Task<void> LocalFiles::write(std::string path, std::string bytes, unsigned mode) {
    auto job = [&path, &bytes, mode] { return write_now(path, bytes, mode); };
    co_return co_await pool_.run(std::move(job));
}

Files::Task<void> LocalFiles::remove(std::string path) {
    auto job = [&path] { return remove_now(path); };
    co_return co_await pool_.run(std::move(job));
}

Files::Task<void> LocalFiles::rename(std::string from, std::string to) {
    auto job = [&from, &to] { return rename_now(from, to); };
    co_return co_await pool_.run(std::move(job));
}

Files::Task<void> LocalFiles::make_directories(std::string path, unsigned mode) {
    auto job = [&path, mode] { return make_directories_now(path, mode); };
    co_return co_await pool_.run(std::move(job));
}

Files::Task<std::vector<std::string>> LocalFiles::list(std::string directory) {
    auto job = [&directory] { return list_now(directory); };
    co_return co_await pool_.run(std::move(job));
}

Files::Task<Copied> LocalFiles::copy(std::string from, std::string to, CopyOptions options) {
    CopyJob copy{std::move(from), std::move(to), options.mode, options.sha512, true, {}};
    copy.report = on_loop(co_await boost::asio::this_coro::executor, std::move(options.progress));
    auto job = [&copy](const std::atomic<bool>& stop) { return copy_file(copy, stop); };
    co_return co_await copies_.run_stoppable(std::move(job));
}

Files::Task<std::unique_ptr<GrowingFile>> LocalFiles::grow(std::string path, GrowOptions options) {
    const auto report = on_loop(co_await boost::asio::this_coro::executor, std::move(options.progress));
    auto job = [&](const std::atomic<bool>& stop) { return GrowingBytes::open(path, options.sha512, report, stop); };
    auto opened = co_await copies_.run_stoppable(std::move(job));
    if (!opened) co_return base::fail(std::move(opened).error());
    co_return std::make_unique<LocalGrowingFile>(pool_, std::move(*opened));
}

Files::Task<Space> LocalFiles::space(std::string path) {
    auto job = [&path] { return space_now(path); };
    co_return co_await pool_.run(std::move(job));
}

Files::Task<std::string> LocalFiles::make(std::function<base::Result<std::string>()> work) {
    co_return co_await pool_.run(std::move(work));
}

Files::Task<std::string> LocalFiles::resolve(std::string path) {
    auto job = [&path] { return resolve_now(path); };
    co_return co_await pool_.run(std::move(job));
}

}  // namespace ghost::storage
