#include "base/spawn.hpp"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::base {
namespace {

struct Pipe {
    Descriptor read;
    Descriptor write;
};

// Never 0, 1 or 2, which the child overwrites.
Result<Descriptor> above_stdio(int fd, std::string_view what) {
    if (fd < 0) return fail(errno_error(errno, what));
    Descriptor owned{fd};
    if (fd > STDERR_FILENO) return owned;
    Descriptor moved{::fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1)};
    if (!moved) return fail(errno_error(errno, what));
    return moved;
}

Result<Pipe> make_pipe() {
    std::array<int, 2> ends{-1, -1};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail(errno_error(errno, "cannot make a pipe"));
    auto read = above_stdio(ends[0], "cannot move a pipe");
    auto write = above_stdio(ends[1], "cannot move a pipe");
    if (!read) return fail(std::move(read).error());
    if (!write) return fail(std::move(write).error());
    return Pipe{std::move(*read), std::move(*write)};
}

// A file in memory instead of a pipe: nothing has to feed it, and a child that doesn't read raises no SIGPIPE here.
Result<Descriptor> make_input(std::string_view bytes) {
    if (bytes.empty()) return above_stdio(::open("/dev/null", O_RDONLY | O_CLOEXEC), "cannot open /dev/null");
    auto file = above_stdio(::memfd_create("stdin", MFD_CLOEXEC), "cannot make a file in memory");
    if (!file) return file;
    while (!bytes.empty()) {
        const auto written = ::write(file->get(), bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return fail(errno_error(errno, "cannot write a file in memory"));
        bytes.remove_prefix(static_cast<std::size_t>(written));
    }
    if (::lseek(file->get(), 0, SEEK_SET) != 0) return fail(errno_error(errno, "cannot rewind a file in memory"));
    return file;
}

struct Limit {
    __rlimit_resource_t resource;
    rlim_t value;
};

// All that the child needs, made before the fork: after it nothing may allocate.
struct Plan {
    std::vector<std::string> candidates;  // paths to try in turn
    std::vector<std::string> environment;
    std::vector<char*> argv;
    std::vector<char*> envp;
    std::vector<Limit> limits;
    int input = -1, output = -1, error = -1, failure = -1;
    pid_t parent = -1;
};

std::vector<std::string> candidates_of(const std::string& program) {
    if (program.find('/') != std::string::npos) return {program};
    const char* const set = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): nothing here changes the environment
    std::string_view path = set != nullptr && *set != '\0' ? set : "/usr/sbin:/usr/bin:/sbin:/bin";
    std::vector<std::string> found;
    for (;;) {
        const auto colon = path.find(':');
        const auto folder = path.substr(0, colon);
        if (folder.starts_with('/'))
            found.push_back(std::string{folder} + "/" + program);  // never the working directory
        if (colon == std::string_view::npos) return found;
        path.remove_prefix(colon + 1);
    }
}

std::vector<std::string> child_environment() {
    // Every thread's arena reserves 64 to 128 MiB, which a limit on address space counts: a program with a few threads
    // more than usual could start no other.
    std::vector<std::string> variables{"LC_ALL=C.UTF-8", "MALLOC_ARENA_MAX=1"};
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view variable{*entry};
        // Ours may hold secrets; LC_ALL is set above so that messages don't depend on the host.
        if (variable.starts_with("GHOST_") || variable.starts_with("LC_ALL=") ||
            variable.starts_with("MALLOC_ARENA_MAX="))
            continue;
        variables.emplace_back(variable);
    }
    return variables;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> result;
    result.reserve(texts.size() + 1);
    for (auto& text : texts) result.push_back(text.data());
    result.push_back(nullptr);
    return result;
}

void add_limit(std::vector<Limit>& limits, __rlimit_resource_t resource, std::optional<std::uint64_t> value) {
    if (!value) return;
    rlimit now{};
    // What is tighter already stays; raising is neither wanted nor allowed.
    if (::getrlimit(resource, &now) == 0 && now.rlim_max < *value) value = now.rlim_max;
    limits.push_back({resource, *value});
}

[[noreturn]] void report_and_exit(int fd, int number) {
    [[maybe_unused]] const auto written = ::write(fd, &number, sizeof number);
    ::_exit(127);
}

// In the child, between fork and exec: only async-signal-safe calls.
[[noreturn]] void become(const Plan& plan) {
    for (int number = 1; number < NSIG; ++number) {
        struct sigaction plain = {};
        plain.sa_handler = SIG_DFL;  // NOLINT(cppcoreguidelines-pro-type-union-access)
        ::sigaction(number, &plain, nullptr);
    }
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != plan.parent) ::_exit(127);  // the agent died before the line above
    constexpr int failure = STDERR_FILENO + 1;
    if (::dup2(plan.input, STDIN_FILENO) < 0 || ::dup2(plan.output, STDOUT_FILENO) < 0 ||
        ::dup2(plan.error, STDERR_FILENO) < 0)
        report_and_exit(plan.failure, errno);
    if (plan.failure != failure && ::dup3(plan.failure, failure, O_CLOEXEC) < 0) report_and_exit(plan.failure, errno);
    if (::syscall(SYS_close_range, static_cast<unsigned>(failure + 1), ~0U, 0U) != 0) report_and_exit(failure, errno);
    for (const auto& limit : plan.limits) {
        const rlimit both{limit.value, limit.value};
        if (::setrlimit(limit.resource, &both) != 0) report_and_exit(failure, errno);
    }
    sigset_t none;
    ::sigemptyset(&none);
    ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
    int reason = ENOENT;
    for (const auto& path : plan.candidates) {
        ::execve(path.c_str(), plan.argv.data(), plan.envp.data());
        if (errno != ENOENT && errno != ENOTDIR) reason = errno;
    }
    report_and_exit(failure, reason);
}

// fork with every signal blocked, so that none of our handlers runs in the child.
pid_t fork_quietly(const Plan& plan) {
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    const auto pid = ::fork();
    if (pid == 0) become(plan);
    const auto reason = errno;
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = reason;
    return pid;
}

}  // namespace

Result<Spawned> spawn(const Command& command) {
    if (command.argv.empty() || command.argv.front().empty()) return fail(Errc::not_found, "no program was named");
    auto input = make_input(command.input);
    auto output = make_pipe();
    auto error = make_pipe();
    auto failure = make_pipe();
    if (!input) return fail(std::move(input).error());
    for (auto* pipe : {&output, &error, &failure})
        if (!*pipe) return fail(std::move(*pipe).error());

    auto argv = command.argv;
    Plan plan{candidates_of(argv.front()), child_environment(),  {},        {}, {}, input->get(), output->write.get(),
              error->write.get(),          failure->write.get(), ::getpid()};
    plan.argv = pointers(argv);
    plan.envp = pointers(plan.environment);
    add_limit(plan.limits, RLIMIT_CORE, 0);
    add_limit(plan.limits, RLIMIT_CPU, command.limits.cpu_seconds);
    add_limit(plan.limits, RLIMIT_AS, command.limits.address_space);
    add_limit(plan.limits, RLIMIT_FSIZE, command.limits.file_size);
    add_limit(plan.limits, RLIMIT_NOFILE, command.limits.open_files);

    Spawned child;
    child.pid = fork_quietly(plan);
    if (child.pid < 0) return fail(errno_error(errno, "cannot fork"));
    ::setpgid(child.pid, child.pid);  // the child does it too: whoever is first
    child.pidfd = Descriptor{static_cast<int>(::syscall(SYS_pidfd_open, child.pid, 0U))};
    if (!child.pidfd) {
        const auto reason = errno;
        ::kill(-child.pid, SIGKILL);
        ::waitpid(child.pid, nullptr, 0);
        return fail(errno_error(reason, "cannot watch a child process"));
    }
    child.output = std::move(output->read);
    child.error = std::move(error->read);
    child.failure = std::move(failure->read);
    return child;
}

}  // namespace ghost::base
