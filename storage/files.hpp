// Files as a seam: everything that may wait for a disk runs on the disk pool,
// not on the loop, and tests may hand over a file system in memory.
#pragma once

#include "base/error.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ghost::storage {

struct FileInfo {
    std::uint64_t size = 0;       // bytes
    std::uint64_t allocated = 0;  // bytes on disk
    unsigned mode = 0;            // permission bits
    bool regular = false;
    bool directory = false;
};

struct Space {  // of the file system that holds a path
    std::uint64_t total = 0;
    std::uint64_t free = 0;         // for unprivileged users
    std::uint64_t file_system = 0;  // which: the same number for the same one, as long as it is mounted
};

struct Copied {
    std::uint64_t size = 0;
    std::string sha256;  // 64 hex digits
    std::string sha512;  // 128 hex digits, empty unless it was asked for
    bool reflinked = false;
};

struct CopyOptions {
    unsigned mode = 0444;
    bool sha512 = false;
    std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // called on the loop, a few times a second
};

struct GrowOptions {
    bool sha512 = false;
    std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};  // of hashing what is there already
};

// A file that grows at its end and is hashed as it does. One call at a time. Destroyed, it leaves the file as it is.
// Errors: those of Files.
class GrowingFile {
public:
    template <class T>
    using Task = boost::asio::awaitable<base::Result<T>>;
    virtual ~GrowingFile() = default;

    [[nodiscard]] virtual std::uint64_t size() const noexcept = 0;
    // Of a failed append a part may be there; size() and digests don't count it, and the next append overwrites it.
    [[nodiscard]] virtual Task<void> append(std::string bytes) = 0;
    [[nodiscard]] virtual Task<void> start_over() = 0;  // empty again
    // Durable from here on, in its final mode; nothing may follow.
    [[nodiscard]] virtual Task<Copied> seal(unsigned mode) = 0;
};

// Errors: not_found, already_exists, insufficient_storage (a copy's with base::add_disk_facts),
// io_error (with path and reason), cancelled, overloaded. A cancellation doesn't interrupt anything but copy() and
// grow().
class Files {
public:
    template <class T>
    using Task = boost::asio::awaitable<base::Result<T>>;
    virtual ~Files() = default;

    [[nodiscard]] virtual Task<std::optional<FileInfo>> stat(std::string path) = 0;  // nullopt: nothing there
    // The whole file; one that is larger is an io_error.
    [[nodiscard]] virtual Task<std::string> read(std::string path, std::size_t max_bytes) = 0;
    // The first `bytes` bytes of a regular file, fewer when it is shorter.
    [[nodiscard]] virtual Task<std::string> read_head(std::string path, std::size_t bytes) = 0;
    // The last, as long as the file is when it is looked at.
    [[nodiscard]] virtual Task<std::string> read_tail(std::string path, std::size_t bytes) = 0;
    // All or nothing: a temporary beside it, .NAME.new, fsync, rename, fsync of the directory. One write to a path at a
    // time. A temporary that a crash left is taken over by the next write to the path and removed by remove().
    [[nodiscard]] virtual Task<void> write(std::string path, std::string bytes, unsigned mode) = 0;
    [[nodiscard]] virtual Task<void> remove(std::string path) = 0;                  // durable; nothing there is fine
    [[nodiscard]] virtual Task<void> rename(std::string from, std::string to) = 0;  // durable
    [[nodiscard]] virtual Task<void> make_directories(std::string path, unsigned mode) = 0;
    [[nodiscard]] virtual Task<std::vector<std::string>> list(std::string directory) = 0;  // names, sorted
    // Reflinks where the file system can, copies otherwise (sparse stays sparse), hashes on the way, fsyncs. `from`
    // must be a regular file (io_error otherwise, also when it changes meanwhile), `to` must not exist
    // (already_exists). A copy that fails or is cancelled leaves no `to`.
    [[nodiscard]] virtual Task<Copied> copy(std::string from, std::string to, CopyOptions options) = 0;
    // Goes on with the file at `path`, whose bytes are hashed again, or begins it, mode 0600.
    [[nodiscard]] virtual Task<std::unique_ptr<GrowingFile>> grow(std::string path, GrowOptions options) = 0;
    [[nodiscard]] virtual Task<Space> space(std::string path) = 0;
    // Runs work that would hold up the loop; it owns what it touches.
    [[nodiscard]] virtual Task<std::string> make(std::function<base::Result<std::string>()> work) = 0;
    // realpath(3): absolute, without symbolic links. not_found when a part isn't there.
    [[nodiscard]] virtual Task<std::string> resolve(std::string path) = 0;
};

}  // namespace ghost::storage
