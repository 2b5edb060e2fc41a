#include "agent/cli/local_file.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

namespace ghost::cli {
namespace {

constexpr ::mode_t permissions = 0777;

base::Error failed(const char* what, const std::string& path) {
    const int number = errno;
    return base::errno_error(number, fmt::format("cannot {} {}", what, path));
}

// What a file that is made anew gets: there is no other way to ask for the umask.
::mode_t usual_mode() {
    const auto mask = ::umask(0);
    (void)::umask(mask);
    return 0644 & ~mask;
}

}  // namespace

base::Result<NewFile> NewFile::create(const std::string& path, base::Random& random) {
    namespace fs = std::filesystem;
    auto target = fs::path{path};
    struct stat there{};
    auto mode = usual_mode();
    if (::stat(path.c_str(), &there) == 0) {
        if (!S_ISREG(there.st_mode))
            return base::fail(base::Errc::io_error, fmt::format("{} is there and is no file", path));
        mode = there.st_mode & permissions;
        std::error_code fault;
        if (auto real = fs::canonical(target, fault); !fault) target = std::move(real);
    }
    // A name of its own, which is never too long.
    auto draft = (target.parent_path() / fmt::format(".ghost-{:016x}", random.next())).string();
    base::Descriptor file{::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (!file) return base::fail(failed("write", path));
    NewFile made{std::move(file), target.string(), std::move(draft)};
    if (::fchmod(made.file_.get(), mode) != 0) return base::fail(failed("set the mode of", path));
    return made;
}

NewFile::NewFile(NewFile&& other) noexcept
    : file_(std::move(other.file_)), path_(std::move(other.path_)), draft_(std::exchange(other.draft_, {})) {}

NewFile::~NewFile() {
    if (!draft_.empty()) (void)::unlink(draft_.c_str());
}

base::Result<void> NewFile::write(std::string_view bytes) {
    while (!bytes.empty()) {
        const auto written = ::write(file_.get(), bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return base::fail(failed("write", path_));
        bytes.remove_prefix(static_cast<std::size_t>(written));
    }
    return {};
}

base::Result<void> NewFile::finish() {
    if (::fsync(file_.get()) != 0) return base::fail(failed("write", path_));
    if (std::rename(draft_.c_str(), path_.c_str()) != 0) return base::fail(failed("write", path_));
    draft_.clear();
    return {};
}

base::Result<OldFile> OldFile::open(const std::string& path) {
    base::Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};  // a FIFO doesn't hold it up
    if (!file) return base::fail(failed("open", path));
    struct stat status{};
    if (::fstat(file.get(), &status) != 0) return base::fail(failed("look at", path));
    if (!S_ISREG(status.st_mode))
        return base::fail(base::Errc::validation_failed,
                          fmt::format("{} is {}", path, S_ISDIR(status.st_mode) ? "a folder" : "no file"));
    return OldFile{std::move(file), path, static_cast<std::uint64_t>(status.st_size), status.st_mode & permissions};
}

base::Result<std::string> OldFile::next() {
    std::string bytes(static_cast<std::size_t>(std::min<std::uint64_t>(left_, piece)), '\0');
    while (!bytes.empty()) {
        const auto got = ::read(file_.get(), bytes.data(), bytes.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return base::fail(failed("read", path_));
        if (got == 0)
            return base::fail(base::Errc::io_error, fmt::format("{} became shorter while it was read", path_));
        bytes.resize(static_cast<std::size_t>(got));
        break;
    }
    left_ -= bytes.size();
    return bytes;
}

}  // namespace ghost::cli
