#include "agent/cli/viewer.hpp"

#include "base/cancelled.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace {

struct Viewer {
    std::string_view program;
    std::string_view before_path;
};
// TigerVNC's takes a path; Debian's name for it is also that of others, which don't.
constexpr std::array viewers{Viewer{"remote-viewer", "vnc+unix://"}, Viewer{"xtigervncviewer", ""},
                             Viewer{"vncviewer", ""}};

const char* environment(const char* name) {
    const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): one thread
    return value != nullptr && *value != '\0' ? value : nullptr;
}

// The child, or -1 and errno. Its standard output is nobody's: ours is not for it.
pid_t spawn(std::vector<std::string>& command) {
    std::vector<char*> words;
    words.reserve(command.size() + 1);
    for (auto& word : command) words.push_back(word.data());
    words.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    (void)::posix_spawn_file_actions_init(&files);
    (void)::posix_spawnattr_init(&how);
    (void)::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    (void)::posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    sigset_t usual;
    (void)::sigemptyset(&usual);
    (void)::sigaddset(&usual, SIGPIPE);  // which ghostctl ignores
    (void)::posix_spawnattr_setsigdefault(&how, &usual);
    (void)::posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGDEF);
    pid_t child = -1;
    const int fault = ::posix_spawnp(&child, words.front(), &files, &how, words.data(), environ);
    (void)::posix_spawn_file_actions_destroy(&files);
    (void)::posix_spawnattr_destroy(&how);
    errno = fault;
    return fault == 0 ? child : -1;
}

}  // namespace

std::optional<std::vector<std::string>> viewer_command(
    const std::string& socket, const std::function<bool(std::string_view program)>& is_installed) {
    for (const auto& viewer : viewers)
        if (is_installed(viewer.program))
            return std::vector{std::string{viewer.program}, std::string{viewer.before_path} + socket};
    return std::nullopt;
}

std::optional<std::string> find_program(std::string_view name) {
    std::string_view path = "/usr/local/bin:/usr/bin:/bin";
    if (const char* said = environment("PATH")) path = said;
    while (true) {
        const auto colon = path.find(':');
        if (const auto folder = path.substr(0, colon); !folder.empty()) {
            auto file = (std::filesystem::path{folder} / name).string();
            std::error_code fault;
            if (std::filesystem::is_regular_file(file, fault) && ::access(file.c_str(), X_OK) == 0) return file;
        }
        if (colon == std::string_view::npos) return std::nullopt;
        path.remove_prefix(colon + 1);
    }
}

bool ProcessDesktop::has_display() const {
    return environment("DISPLAY") != nullptr || environment("WAYLAND_DISPLAY") != nullptr;
}

bool ProcessDesktop::is_installed(std::string_view program) const { return find_program(program).has_value(); }

asio::awaitable<base::Result<int>> ProcessDesktop::run(std::vector<std::string> command) {
    const auto child = spawn(command);
    if (child < 0) {
        const int number = errno;
        co_return base::fail(base::errno_error(number, fmt::format("cannot start {}", command.front())));
    }
    const int ended = static_cast<int>(::syscall(SYS_pidfd_open, child, 0));  // readable when it has
    int status = 0;
    if (ended < 0) {
        const int number = errno;
        (void)::kill(child, SIGKILL);
        (void)::waitpid(child, &status, 0);
        co_return base::fail(base::errno_error(number, fmt::format("cannot watch {}", command.front())));
    }
    asio::posix::stream_descriptor watch{co_await asio::this_coro::executor, ended};
    // On the loop, also while it takes its leave: what it shows goes through here.
    for (bool told = false; ::waitpid(child, &status, WNOHANG) == 0;) {
        (void)co_await watch.async_wait(asio::posix::stream_descriptor::wait_read, asio::as_tuple(asio::use_awaitable));
        if (!told && co_await base::is_cancelled()) told = ::kill(child, SIGTERM) == 0;
    }
    co_return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

base::Result<std::string> ProcessDesktop::make_private_folder() {
    std::string base = "/tmp";
    for (const char* name : {"XDG_RUNTIME_DIR", "TMPDIR"})
        if (const char* folder = environment(name); folder != nullptr && ::access(folder, W_OK) == 0) {
            base = folder;
            break;
        }
    auto pattern = base + "/ghostctl-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) {
        const int number = errno;
        return base::fail(base::errno_error(number, fmt::format("cannot make a folder in {}", base)));
    }
    return pattern;
}

void ProcessDesktop::remove_folder(const std::string& path) noexcept {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
}

}  // namespace ghost::cli
