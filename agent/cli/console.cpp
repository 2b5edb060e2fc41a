#include "agent/cli/console.hpp"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace ghost::cli {
namespace {

// 0, or errno.
int write_all(int fd, std::string_view text) {
    while (!text.empty()) {
        const auto written = ::write(fd, text.data(), text.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0 && errno == EAGAIN) {
            // Whoever shares the terminal or pipe with us may have made it so.
            pollfd room{fd, POLLOUT, 0};
            (void)::poll(&room, 1, -1);
            continue;
        }
        if (written < 0) return errno;
        text.remove_prefix(static_cast<std::size_t>(written));
    }
    return 0;
}

// nullopt: no terminal, or one that only takes lines.
std::optional<Screen> terminal(int fd) {
    if (::isatty(fd) == 0) return std::nullopt;
    const char* term = std::getenv("TERM");  // NOLINT(concurrency-mt-unsafe): one thread
    if (term == nullptr || std::string_view{term} == "dumb") return std::nullopt;
    winsize size{};
    const bool known = ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
    return known ? Screen{size.ws_col, size.ws_row} : Screen{};
}

}  // namespace

void ProcessConsole::out(std::string_view text) {
    if (closed_) return;
    const int fault = write_all(STDOUT_FILENO, text);
    if (fault == 0) return;
    closed_ = true;
    if (fault != EPIPE) fault_ = fault;
}

void ProcessConsole::error(std::string_view text) { (void)write_all(STDERR_FILENO, text); }

std::optional<std::size_t> ProcessConsole::progress_columns() const {
    const auto screen = terminal(STDERR_FILENO);
    if (!screen) return std::nullopt;
    // The last column stays free: some terminals wrap when it is written.
    return std::max<std::size_t>(screen->columns, 20) - 1;
}

std::optional<Screen> ProcessConsole::screen() const { return terminal(STDOUT_FILENO); }

bool ProcessConsole::can_ask() const { return ::isatty(STDIN_FILENO) != 0 && ::isatty(STDERR_FILENO) != 0; }

std::optional<std::string> ProcessConsole::ask(std::string_view question) {
    error(question);
    constexpr std::size_t longest = 1024;
    std::string line;
    char c = 0;
    while (line.size() < longest) {
        const auto got = ::read(STDIN_FILENO, &c, 1);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return std::nullopt;
        if (c == '\n') break;
        line += c;
    }
    return line;
}

}  // namespace ghost::cli
