// Processes of the test's, whose standard streams it has.
#pragma once

#include "base/descriptor.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <functional>
#include <string>

namespace ghost::cli {

struct Pipe {
    base::Descriptor out;  // to read from
    base::Descriptor in;
    Pipe() {
        std::array<int, 2> ends{};
        REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
        out.reset(ends[0]);
        in.reset(ends[1]);
    }
};

[[nodiscard]] inline std::string read_all(int fd) {
    std::string all;
    std::array<char, 4096> piece{};
    for (ssize_t got = 0; (got = ::read(fd, piece.data(), piece.size())) > 0;)
        all.append(piece.data(), static_cast<std::size_t>(got));
    return all;
}

// Does `work` with these as its standard input and output.
[[nodiscard]] inline pid_t start(int input, int output, const std::function<void()>& work) {
    const auto child = ::fork();
    REQUIRE(child >= 0);
    if (child > 0) return child;
    (void)::dup2(input, STDIN_FILENO);
    (void)::dup2(output, STDOUT_FILENO);
    // What Catch does with signals is for the test's own process.
    for (const int signal : {SIGHUP, SIGQUIT, SIGABRT, SIGTERM}) (void)::signal(signal, SIG_DFL);
    try {
        work();
        ::_exit(0);
    } catch (...) {
        ::_exit(1);
    }
}

[[nodiscard]] inline int end_of(pid_t child) {
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace ghost::cli
