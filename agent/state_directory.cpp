#include "agent/state_directory.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

namespace ghost::agent {
namespace {

base::Result<void> write_all(const std::string& path, const std::string& text) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return base::fail(base::errno_error(errno, "cannot write " + path));
    errno = 0;
    const auto size = static_cast<off_t>(text.size());
    const auto written = ::pwrite(fd, text.data(), text.size(), 0);
    const bool good = written == size && ::ftruncate(fd, size) == 0 && ::fsync(fd) == 0;
    const int why = good ? 0 : (errno == 0 ? ENOSPC : errno);
    ::close(fd);
    if (!good) return base::fail(base::errno_error(why, "cannot write " + path));
    return {};
}

// What is written takes the place of what was there, and that is kept to be written over the next time: so a full disk,
// where no new file would find room, keeps no agent from starting.
base::Result<void> write_durably(const std::string& path, const std::string& text) {
    const auto spare = path + ".new";
    if (auto written = write_all(spare, text); !written) return written;
    // Not there yet, or a file system that can't exchange: its spare is made anew.
    if (::renameat2(AT_FDCWD, spare.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) != 0) {
        if (::rename(spare.c_str(), path.c_str()) != 0)
            return base::fail(base::errno_error(errno, "cannot replace " + path));
        (void)write_all(spare, text);
    }
    const int dir = ::open(std::filesystem::path{path}.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0) {
        ::fsync(dir);
        ::close(dir);
    }
    return {};
}

}  // namespace

base::Result<StateDirectory> StateDirectory::open(const std::string& path) {
    std::error_code ec;
    std::filesystem::create_directories(path, ec);
    if (ec) return base::fail(base::Errc::io_error, "state_dir: cannot make " + path + ": " + ec.message());
    if (::chmod(path.c_str(), 0711) != 0)
        return base::fail(base::errno_error(errno, "state_dir: " + path + " is not ours to use"));
    const auto lock_path = path + "/agent.lock";
    const int lock = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0) return base::fail(base::errno_error(errno, "state_dir: " + path + " is not writable"));
    if (::flock(lock, LOCK_EX | LOCK_NB) != 0) {
        const int why = errno;
        ::close(lock);
        if (why == EWOULDBLOCK)
            return base::fail(base::Errc::state_conflict, "state_dir: another ghost-agent is using " + path);
        return base::fail(base::errno_error(why, "state_dir: cannot lock " + lock_path));
    }
    return StateDirectory{path, lock};
}

StateDirectory::StateDirectory(StateDirectory&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}

StateDirectory::~StateDirectory() {
    if (lock_ >= 0) ::close(lock_);
}

base::Result<heartbeat::Identity> StateDirectory::next_identity(const base::Clock& clock, base::Random& random) const {
    const auto path = path_ + "/identity.json";
    std::optional<std::string> text;
    if (std::filesystem::exists(path)) {
        std::ifstream in{path};
        std::ostringstream out;
        out << in.rdbuf();
        if (!in) return base::fail(base::Errc::io_error, "cannot read " + path);
        text = std::move(out).str();
    }
    auto identity = heartbeat::next_identity(text, clock, random);
    if (!identity) return base::fail(identity.error().code, path + ": " + identity.error().detail);
    if (const auto written = write_durably(path, heartbeat::to_text(*identity)); !written)
        return base::fail(written.error());
    return identity;
}

}  // namespace ghost::agent
