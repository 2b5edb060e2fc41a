#include "storage/copy_file.hpp"

#include "base/descriptor.hpp"
#include "storage/digest.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <new>
#include <span>
#include <vector>

namespace ghost::storage {
namespace {

using base::Descriptor;
using base::Errc;
using base::Result;

constexpr std::size_t chunk_size = 1024 * 1024;
constexpr std::uint64_t write_back_every = 32 * chunk_size;
constexpr std::chrono::milliseconds report_every{250};

auto os_error(int number, const std::string& what) {
    auto error = base::errno_error(number, what);
    if (number == ENOENT) error.code = Errc::not_found;
    if (number == EEXIST) error.code = Errc::already_exists;
    return base::fail(std::move(error));
}

std::uint64_t free_bytes(int fd) {
    struct statvfs space = {};
    return ::fstatvfs(fd, &space) == 0 ? std::uint64_t{space.f_bavail} * space.f_frsize : 0;
}

auto no_room(const std::string& to, std::uint64_t needed, std::uint64_t free) {
    base::Error error{Errc::insufficient_storage,
                      fmt::format("no room for {}: {} bytes needed, {} free", to, needed, free)};
    base::add_disk_facts(error, needed, free);
    return base::fail(std::move(error));
}

class Copy {
public:
    Copy(const CopyJob& job, const std::atomic<bool>& stop) : job_(job), stop_(stop), digests_(job.sha512) {}

    Result<Copied> run() {
        if (auto opened = open(); !opened) return base::fail(std::move(opened).error());
        if (auto done = fill(); !done) {
            ::unlink(job_.to.c_str());
            return base::fail(std::move(done).error());
        }
        Copied copied{size_, digests_.sha256.hex(), {}, reflinked_};
        if (digests_.sha512) copied.sha512 = digests_.sha512->hex();
        return copied;
    }

private:
    Result<void> open() {
        // O_NONBLOCK: opening a FIFO must not wait for its other end.
        from_ = Descriptor{::open(job_.from.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
        if (!from_) return os_error(errno, "cannot open " + job_.from);
        if (::fstat(from_.get(), &before_) != 0) return os_error(errno, "cannot inspect " + job_.from);
        if (!S_ISREG(before_.st_mode)) return base::fail(Errc::io_error, job_.from + " is not a regular file");
        size_ = static_cast<std::uint64_t>(before_.st_size);
        to_ = Descriptor{::open(job_.to.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
        if (!to_) return os_error(errno, "cannot create " + job_.to);
        return {};
    }

    Result<void> fill() {
        reflinked_ = job_.reflink && ::ioctl(to_.get(), FICLONE, from_.get()) == 0;
        if (!reflinked_) {
            const auto allocated = std::min(size_, static_cast<std::uint64_t>(before_.st_blocks) * 512);
            if (const auto free = free_bytes(to_.get()); free < allocated) return no_room(job_.to, allocated, free);
        }
        // What was shared is hashed from the copy, so that the digest is of what is kept.
        source_ = reflinked_ ? to_.get() : from_.get();
        if (auto passed = pass(); !passed) return passed;
        struct stat after = {};
        if (::fstat(from_.get(), &after) != 0) return os_error(errno, "cannot inspect " + job_.from);
        if (after.st_size != before_.st_size || after.st_mtim.tv_sec != before_.st_mtim.tv_sec ||
            after.st_mtim.tv_nsec != before_.st_mtim.tv_nsec)
            return changed();
        if (::ftruncate(to_.get(), before_.st_size) != 0) return failed(errno);
        if (::fchmod(to_.get(), static_cast<mode_t>(job_.mode)) != 0) return failed(errno);
        if (::fsync(to_.get()) != 0) return failed(errno);
        return sync_directory_of(job_.to);
    }

    // One pass over the source: data is read, hashed and (unless shared already) written, holes are hashed as zeros.
    Result<void> pass() {
        while (done_ < size_) {
            const auto data = seek(SEEK_DATA);
            if (auto zeros = skip_hole(data); !zeros) return zeros;
            const auto hole = seek(SEEK_HOLE);
            while (done_ < hole)
                if (auto moved = move_chunk(std::min<std::uint64_t>(chunk_size, hole - done_)); !moved) return moved;
        }
        if (job_.report) job_.report(size_, size_);
        return {};
    }

    // Where data (or a hole) starts at or after the position. A file system that can't tell has data only.
    std::uint64_t seek(int whence) const {
        const auto found = ::lseek(source_, static_cast<off_t>(done_), whence);
        if (found >= 0) return std::min(size_, static_cast<std::uint64_t>(found));
        if (errno == ENXIO) return size_;  // a hole up to the end
        return whence == SEEK_DATA ? done_ : size_;
    }

    Result<void> skip_hole(std::uint64_t until) {
        static const std::vector<char> zeros(chunk_size);
        while (done_ < until) {
            if (auto go = between(); !go) return go;
            const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(chunk_size, until - done_));
            digests_.add(std::span{zeros}.first(length));
            done_ += length;
        }
        return {};
    }

    Result<void> move_chunk(std::uint64_t wanted) {
        if (auto go = between(); !go) return go;
        const auto count =
            ::pread(source_, buffer_.data(), static_cast<std::size_t>(wanted), static_cast<off_t>(done_));
        if (count < 0 && errno == EINTR) return {};
        if (count < 0) return os_error(errno, "cannot read " + job_.from);
        if (count == 0) return changed();
        const auto bytes = std::span<const char>{buffer_}.first(static_cast<std::size_t>(count));
        digests_.add(bytes);
        if (!reflinked_)
            if (auto written = write(bytes); !written) return written;
        done_ += bytes.size();
        if (!reflinked_ && done_ - started_ >= write_back_every) {
            // Starts the disk early: the fsync at the end, which can't be cancelled, has less to do.
            ::sync_file_range(to_.get(), static_cast<off_t>(started_), static_cast<off_t>(done_ - started_),
                              SYNC_FILE_RANGE_WRITE);
            started_ = done_;
        }
        return {};
    }

    Result<void> write(std::span<const char> bytes) {
        auto at = done_;
        while (!bytes.empty()) {
            const auto count = ::pwrite(to_.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) return failed(errno);
            bytes = bytes.subspan(static_cast<std::size_t>(count));
            at += static_cast<std::uint64_t>(count);
        }
        return {};
    }

    Result<void> between() {
        if (stop_.load(std::memory_order_relaxed)) return base::fail(Errc::cancelled, "the copy was cancelled");
        const auto now = std::chrono::steady_clock::now();
        if (job_.report && now >= next_report_) {
            job_.report(done_, size_);
            next_report_ = now + report_every;
        }
        return {};
    }

    std::unexpected<base::Error> failed(int number) const {
        if (number == ENOSPC || number == EDQUOT) return no_room(job_.to, size_ - done_, free_bytes(to_.get()));
        return os_error(number, "cannot write " + job_.to);
    }
    std::unexpected<base::Error> changed() const {
        return base::fail(Errc::io_error, job_.from + " changed while it was copied");
    }

    const CopyJob& job_;
    const std::atomic<bool>& stop_;
    Descriptor from_;
    Descriptor to_;
    int source_ = -1;
    struct stat before_ = {};
    std::uint64_t size_ = 0;
    std::uint64_t done_ = 0;
    std::uint64_t started_ = 0;  // write-back was asked for up to here
    bool reflinked_ = false;
    std::vector<char> buffer_ = std::vector<char>(chunk_size);
    Digests digests_;
    std::chrono::steady_clock::time_point next_report_ = std::chrono::steady_clock::now() + report_every;
};

}  // namespace

Result<Copied> copy_file(const CopyJob& job, const std::atomic<bool>& stop) { return Copy{job, stop}.run(); }

Result<void> sync_directory_of(const std::string& path) {
    const auto parent = std::filesystem::path{path}.parent_path();
    const auto name = parent.empty() ? std::string{"."} : parent.string();
    const Descriptor directory{::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!directory) return os_error(errno, "cannot open " + name);
    if (::fsync(directory.get()) != 0) return os_error(errno, "cannot sync " + name);
    return {};
}

}  // namespace ghost::storage
