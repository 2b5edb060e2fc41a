#include "agent/cli/stdio.hpp"

#include "agent/cli/stream_bytes.hpp"
#include "base/descriptor.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace {

// How the process's streams were found. A signal's handler can be given nothing else.
struct Found {
    termios mode{};
    volatile std::sig_atomic_t is_raw = 0;
    std::array<int, 2> flags{};  // of standard input and output
    volatile std::sig_atomic_t has_flags = 0;
};
Found found;

// These two do only what a signal's handler may.
void restore_flags(int fd) noexcept {
    if (const int flags = found.flags.at(static_cast<std::size_t>(fd)); flags >= 0) (void)::fcntl(fd, F_SETFL, flags);
}

void restore_all() noexcept {
    if (found.is_raw != 0) (void)::tcsetattr(STDIN_FILENO, TCSANOW, &found.mode);
    found.is_raw = 0;
    if (found.has_flags != 0)
        for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) restore_flags(fd);
    found.has_flags = 0;
}

extern "C" void restore_and_end(int signal) {
    const int error = errno;
    restore_all();
    (void)::raise(signal);  // SA_RESETHAND: as by default
    errno = error;
}

// The streams as they were found, again, when it goes. One at a time.
class Restored {
public:
    Restored() {
        for (const int fd : {STDIN_FILENO, STDOUT_FILENO})
            found.flags.at(static_cast<std::size_t>(fd)) = ::fcntl(fd, F_GETFL);
        found.has_flags = 1;
        end_restored_by({SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL});
    }
    ~Restored() { restore_all(); }
    Restored(const Restored&) = delete;
    Restored& operator=(const Restored&) = delete;

    // 0, or errno.
    [[nodiscard]] int make_raw() {
        if (::tcgetattr(STDIN_FILENO, &found.mode) != 0) return errno;
        auto raw = found.mode;
        ::cfmakeraw(&raw);
        found.is_raw = 1;
        return ::tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0 ? 0 : errno;
    }
};

class StdioChannel final : public ByteChannel {
public:
    StdioChannel(std::unique_ptr<Restored> restored, asio::posix::stream_descriptor in,
                 asio::posix::stream_descriptor out)
        : restored_(std::move(restored)), in_(std::move(in)), out_(std::move(out)) {}

    [[nodiscard]] asio::awaitable<base::Result<std::size_t>> read(asio::mutable_buffer room) override {
        return read_some(in_, room);
    }
    [[nodiscard]] asio::awaitable<bool> write(asio::const_buffer bytes) override { return write_all(out_, bytes); }
    // Whoever reads a pipe sees its end only when nothing here has it open any more.
    void end_writing() noexcept override {
        if (::shutdown(STDOUT_FILENO, SHUT_WR) == 0 || ::isatty(STDOUT_FILENO) != 0) return;
        restore_flags(STDOUT_FILENO);
        boost::system::error_code ignored;
        (void)out_.close(ignored);
        const base::Descriptor nothing{::open("/dev/null", O_WRONLY | O_CLOEXEC)};
        if (nothing) (void)::dup2(nothing.get(), STDOUT_FILENO);
    }

private:
    std::unique_ptr<Restored> restored_;  // first in, last out
    asio::posix::stream_descriptor in_;
    asio::posix::stream_descriptor out_;
};

}  // namespace

void end_restored_by(std::initializer_list<int> signals) {
    struct sigaction action{};
    action.sa_handler = restore_and_end;
    action.sa_flags = static_cast<int>(SA_RESETHAND | static_cast<unsigned>(SA_NODEFER));
    (void)::sigemptyset(&action.sa_mask);
    for (const int signal : signals)
        if (struct sigaction now{}; ::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_DFL)
            (void)::sigaction(signal, &action, nullptr);
}

ProcessStdio::ProcessStdio(const asio::any_io_executor& executor) : executor_(executor), window_changes_(executor) {}

bool ProcessStdio::input_is_terminal() const { return ::isatty(STDIN_FILENO) != 0; }

bool ProcessStdio::output_is_terminal() const { return ::isatty(STDOUT_FILENO) != 0; }

base::Result<std::unique_ptr<ByteChannel>> ProcessStdio::open(bool raw) {
    auto restored = std::make_unique<Restored>();
    std::array<asio::posix::stream_descriptor, 2> streams{asio::posix::stream_descriptor{executor_},
                                                          asio::posix::stream_descriptor{executor_}};
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) {
        const auto* const name = fd == STDIN_FILENO ? "standard input" : "standard output";
        base::Descriptor copy{::fcntl(fd, F_DUPFD_CLOEXEC, 3)};
        if (!copy) return base::fail(base::errno_error(errno, name));
        boost::system::error_code fault;
        // A file or /dev/null, which can't be waited for, is read and written at once.
        (void)streams.at(static_cast<std::size_t>(fd)).assign(copy.get(), fault);
        if (fault) return base::fail(base::errno_error(fault.value(), name));
        (void)copy.release();
    }
    if (raw)
        if (const int fault = restored->make_raw(); fault != 0)
            return base::fail(base::errno_error(fault, "cannot set the terminal"));
    return std::make_unique<StdioChannel>(std::move(restored), std::move(streams[0]), std::move(streams[1]));
}

std::optional<Screen> ProcessStdio::size() const {
    for (const int fd : {STDOUT_FILENO, STDIN_FILENO}) {
        winsize size{};
        if (::isatty(fd) != 0 && ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0)
            return Screen{size.ws_col, size.ws_row};
    }
    return std::nullopt;
}

asio::awaitable<void> ProcessStdio::resized() {
    boost::system::error_code already;
    (void)window_changes_.add(SIGWINCH, already);
    (void)co_await window_changes_.async_wait(asio::as_tuple(asio::use_awaitable));
}

}  // namespace ghost::cli
