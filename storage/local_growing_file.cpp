#include "storage/local_growing_file.hpp"

#include "storage/copy_file.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <vector>

namespace ghost::storage {
namespace {

using base::Errc;
using base::Result;

constexpr std::size_t chunk_size = 1024 * 1024;
constexpr std::uint64_t write_back_every = 32ULL << 20;
constexpr std::chrono::milliseconds report_every{250};

auto failed(int number, const std::string& what) { return base::fail(base::errno_error(number, what)); }

}  // namespace

Result<GrowingBytes> GrowingBytes::open(const std::string& path, bool sha512, const Report& report,
                                        const std::atomic<bool>& stop) {
    base::Descriptor file{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600)};
    if (!file) return failed(errno, "cannot open " + path);
    struct stat found = {};
    if (::fstat(file.get(), &found) != 0) return failed(errno, "cannot inspect " + path);
    if (!S_ISREG(found.st_mode)) return base::fail(Errc::io_error, path + " is not a regular file");
    GrowingBytes bytes{path, std::move(file), sha512};
    if (auto hashed = bytes.hash_what_is_there(report, stop); !hashed) return base::fail(std::move(hashed).error());
    return bytes;
}

Result<void> GrowingBytes::hash_what_is_there(const Report& report, const std::atomic<bool>& stop) {
    struct stat found = {};
    if (::fstat(file_.get(), &found) != 0) return failed(errno, "cannot inspect " + path_);
    std::vector<char> buffer(chunk_size);
    auto next_report = std::chrono::steady_clock::now() + report_every;
    for (;;) {
        if (stop.load(std::memory_order_relaxed)) return base::fail(Errc::cancelled, "the reading was cancelled");
        const auto count = ::pread(file_.get(), buffer.data(), buffer.size(), static_cast<off_t>(size_));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return failed(errno, "cannot read " + path_);
        if (count == 0) break;
        digests_.add(std::span<const char>{buffer}.first(static_cast<std::size_t>(count)));
        size_ += static_cast<std::uint64_t>(count);
        if (report && std::chrono::steady_clock::now() >= next_report) {
            report(size_, static_cast<std::uint64_t>(found.st_size));
            next_report += report_every;
        }
    }
    written_back_ = size_;
    return {};
}

Result<void> GrowingBytes::append(std::string_view bytes) {
    auto rest = bytes;
    auto at = size_;
    while (!rest.empty()) {
        const auto count = ::pwrite(file_.get(), rest.data(), rest.size(), static_cast<off_t>(at));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return failed(errno, "cannot write " + path_);
        rest.remove_prefix(static_cast<std::size_t>(count));
        at += static_cast<std::uint64_t>(count);
    }
    digests_.add(bytes);
    size_ = at;
    write_back();
    return {};
}

// Starts the disk early: the fsync at the end, which can't be cancelled, has less to do.
void GrowingBytes::write_back() {
    if (size_ - written_back_ < write_back_every) return;
    ::sync_file_range(file_.get(), static_cast<off_t>(written_back_), static_cast<off_t>(size_ - written_back_),
                      SYNC_FILE_RANGE_WRITE);
    written_back_ = size_;
}

Result<void> GrowingBytes::start_over() {
    if (::ftruncate(file_.get(), 0) != 0) return failed(errno, "cannot cut " + path_);
    digests_ = Digests{sha512_};
    size_ = written_back_ = 0;
    return {};
}

Result<Copied> GrowingBytes::seal(unsigned mode) {
    // What a failed append left behind the end isn't part of it.
    if (::ftruncate(file_.get(), static_cast<off_t>(size_)) != 0) return failed(errno, "cannot cut " + path_);
    if (::fchmod(file_.get(), static_cast<mode_t>(mode)) != 0) return failed(errno, "cannot set the mode of " + path_);
    if (::fsync(file_.get()) != 0) return failed(errno, "cannot sync " + path_);
    if (auto synced = sync_directory_of(path_); !synced) return base::fail(std::move(synced).error());
    Copied copied{size_, digests_.sha256.hex(), {}, false};
    if (digests_.sha512) copied.sha512 = digests_.sha512->hex();
    return copied;
}

GrowingFile::Task<void> LocalGrowingFile::append(std::string bytes) {
    auto job = [this, &bytes] { return bytes_.append(bytes); };
    co_return co_await pool_.run(std::move(job));
}

GrowingFile::Task<void> LocalGrowingFile::start_over() {
    auto job = [this] { return bytes_.start_over(); };
    co_return co_await pool_.run(std::move(job));
}

GrowingFile::Task<Copied> LocalGrowingFile::seal(unsigned mode) {
    auto job = [this, mode] { return bytes_.seal(mode); };
    co_return co_await pool_.run(std::move(job));
}

}  // namespace ghost::storage
