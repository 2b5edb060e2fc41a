// store_writer run as a child until it has said so many lines, and killed.
#pragma once

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <string>
#include <vector>

// What it said; it may have said more than `lines` of them.
inline std::string told_until_killed(std::vector<std::string> arguments, std::ptrdiff_t lines) {
    std::array<int, 2> out{};
    REQUIRE(::pipe2(out.data(), O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    std::string program = STORE_WRITER;
    std::vector<char*> argv{program.data()};
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_t pid = -1;
    REQUIRE(::posix_spawn(&pid, program.c_str(), &actions, nullptr, argv.data(), environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    ::close(out[1]);

    std::string told;
    std::array<char, 4096> buffer{};
    bool killed = false;
    for (;;) {
        const auto count = ::read(out[0], buffer.data(), buffer.size());
        if (count <= 0) break;
        told.append(buffer.data(), static_cast<std::size_t>(count));
        if (!killed && std::ranges::count(told, '\n') >= lines) killed = ::kill(pid, SIGKILL) == 0;
    }
    ::close(out[0]);
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    REQUIRE(WIFSIGNALED(status));
    return told;
}
