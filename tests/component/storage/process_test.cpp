#include "base/process.hpp"

#include "fakes/awaiting.hpp"
#include "fakes/scratch_folder.hpp"

#include <boost/asio/steady_timer.hpp>
#include <catch2/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

using namespace ghost;
using base::Errc;
using std::chrono::milliseconds;

namespace {

base::Command shell(std::string script) { return {.argv = {"sh", "-c", std::move(script)}, .input = {}, .limits = {}}; }

base::Result<base::Exit> run(base::Command command) {
    fakes::TestLoop loop;
    base::ChildProcesses processes;
    return loop.await(processes.run(std::move(command)));
}

// Gone, or a zombie that waits for whoever adopted it.
bool is_dead(pid_t pid) {
    std::ifstream stat{"/proc/" + std::to_string(pid) + "/stat"};
    std::string number, name, state;
    return !(stat >> number >> name >> state) || state == "Z" || state == "X";
}

// A signal that was sent takes its time.
bool dies(pid_t pid) {
    for (int tries = 0; tries < 3000 && !is_dead(pid); ++tries) std::this_thread::sleep_for(milliseconds{10});
    return is_dead(pid);
}

bool no_children_left() { return ::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD; }

}  // namespace

TEST_CASE("a child's status and both of its streams come back") {
    const auto exit = run(shell("echo out; echo err >&2; exit 3"));
    REQUIRE(exit);
    CHECK(exit->status == 3);
    CHECK(exit->output == "out\n");
    CHECK(exit->error == "err\n");
    CHECK(no_children_left());
}

TEST_CASE("a child reads its whole input, and may also leave it unread") {
    auto command = base::Command{.argv = {"cat"}, .input = std::string(900'000, 'x'), .limits = {}};
    const auto echoed = run(command);
    REQUIRE(echoed);
    CHECK(echoed->output == command.input);
    command.argv = {"true"};
    const auto unread = run(command);
    REQUIRE(unread);
    CHECK(unread->status == 0);
}

TEST_CASE("a child without input reads the end at once") {
    const auto exit = run({.argv = {"cat"}, .input = {}, .limits = {}});
    REQUIRE(exit);
    CHECK(exit->output.empty());
}

TEST_CASE("a program that isn't there is not_found, one that can't be executed is an io_error") {
    const auto missing = run({.argv = {"no-such-program-of-ours"}, .input = {}, .limits = {}});
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == Errc::not_found);
    CHECK(missing.error().detail.find("no-such-program-of-ours") != std::string::npos);
    const auto none = run({.argv = {}, .input = {}, .limits = {}});
    REQUIRE_FALSE(none);
    CHECK(none.error().code == Errc::not_found);

    const fakes::ScratchFolder folder;
    const auto text = folder.write("text", "not a program");
    const auto refused = run({.argv = {text}, .input = {}, .limits = {}});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::io_error);
    CHECK(no_children_left());
}

TEST_CASE("arguments reach the program as they are, without a shell") {
    const auto exit = run({.argv = {"printf", "%s|", "a b", "$HOME", "; rm -rf x", "*"}, .input = {}, .limits = {}});
    REQUIRE(exit);
    CHECK(exit->output == "a b|$HOME|; rm -rf x|*|");
}

TEST_CASE("a child that a signal ended has the status 128 + signal") {
    const auto exit = run(shell("kill -9 $$"));
    REQUIRE(exit);
    CHECK(exit->status == 128 + SIGKILL);
}

TEST_CASE("at the deadline the child and all of its group are killed") {
    const fakes::ScratchFolder folder;
    auto command = shell("sleep 600 & echo $! > " + folder.path("pid") + "; wait");
    // Longer each time, until the machine was fast enough to start the grandchild.
    for (command.deadline = milliseconds{500}; folder.read("pid").empty(); command.deadline *= 2) {
        REQUIRE(command.deadline < std::chrono::seconds{60});
        const auto exit = run(command);
        REQUIRE_FALSE(exit);
        CHECK(exit.error().code == Errc::deadline_exceeded);
        CHECK(no_children_left());
    }
    CHECK(dies(std::stoi(folder.read("pid"))));
}

TEST_CASE("a child that ignores SIGTERM is killed all the same") {
    auto command = shell("trap '' TERM; while :; do sleep 0.1; done");
    command.deadline = milliseconds{300};
    const auto exit = run(command);
    REQUIRE_FALSE(exit);
    CHECK(exit.error().code == Errc::deadline_exceeded);
    CHECK(no_children_left());
}

TEST_CASE("a cancellation kills the child and is reported as cancelled") {
    fakes::TestLoop loop;
    base::ChildProcesses processes;
    boost::asio::steady_timer timer{loop.context, milliseconds{200}};
    timer.async_wait([&](boost::system::error_code) { loop.cancel(); });
    const auto exit = loop.await(processes.run({.argv = {"sleep", "600"}, .input = {}, .limits = {}}));
    REQUIRE_FALSE(exit);
    CHECK(exit.error().code == Errc::cancelled);
    CHECK(no_children_left());
}

TEST_CASE("more output than allowed ends the child") {
    base::Command command{.argv = {"yes"}, .input = {}, .max_output = 10'000, .limits = {}};
    const auto exit = run(command);
    REQUIRE_FALSE(exit);
    CHECK(exit.error().code == Errc::overloaded);
    CHECK(no_children_left());
}

TEST_CASE("output just as large as allowed is fine, on both streams at once") {
    base::Command command = shell("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2");
    command.max_output = 300'000;
    const auto exit = run(command);
    REQUIRE(exit);
    CHECK(exit->output.size() == 300'000);
    CHECK(exit->error.size() == 300'000);
}

TEST_CASE("limits hold in the child and not in the agent") {
    auto command = shell("ulimit -t; ulimit -v; ulimit -n; ulimit -f; ulimit -c");
    command.limits = {.cpu_seconds = 7, .address_space = 512ULL << 20, .file_size = 1ULL << 20, .open_files = 32};
    const auto exit = run(command);
    REQUIRE(exit);
    CHECK(exit->output == "7\n524288\n32\n2048\n0\n");
    const auto after = run(shell("ulimit -t"));
    REQUIRE(after);
    CHECK(after->output != "7\n");
}

TEST_CASE("a child inherits no descriptor, no blocked or ignored signal and no secret of ours") {
    const auto old = std::signal(SIGPIPE, SIG_IGN);
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
    ::setenv("GHOST_SECRET", "hidden", 1);  // NOLINT(concurrency-mt-unsafe): no other thread of the test looks
    std::array<int, 2> leaky{};
    REQUIRE(::pipe(leaky.data()) == 0);  // without O_CLOEXEC

    const auto fds = run({.argv = {"ls", "/proc/self/fd"}, .input = {}, .limits = {}});
    const auto signals = run({.argv = {"grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"}, .input = {}, .limits = {}});
    const auto environment = run({.argv = {"env"}, .input = {}, .limits = {}});

    ::close(leaky[0]);
    ::close(leaky[1]);
    ::unsetenv("GHOST_SECRET");  // NOLINT(concurrency-mt-unsafe)
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    std::signal(SIGPIPE, old);
    REQUIRE((fds && signals && environment));
    CHECK(fds->output == "0\n1\n2\n3\n");  // 3: the folder that ls reads
    CHECK(signals->output == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    CHECK(environment->output.find("GHOST_") == std::string::npos);
    CHECK(environment->output.find("LC_ALL=C.UTF-8\n") != std::string::npos);
    CHECK(environment->output.find("MALLOC_ARENA_MAX=1\n") != std::string::npos);
}

TEST_CASE("what a child leaves in its group ends with it, and what left the group doesn't hold the runner up") {
    const fakes::ScratchFolder folder;
    const auto stayed = run(shell("sleep 600 & echo $! > " + folder.path("stayed")));
    REQUIRE(stayed);
    CHECK(dies(std::stoi(folder.read("stayed"))));

    const auto left = run(shell("setsid sh -c 'echo $$ > " + folder.path("left") + "; exec sleep 600' & while [ ! -s " +
                                folder.path("left") + " ]; do sleep 0.05; done; echo over"));
    ::kill(std::stoi(folder.read("left")), SIGKILL);
    REQUIRE(left);
    CHECK(left->output == "over\n");
}

TEST_CASE("no more children run at once than may, and the others get their turn") {
    fakes::TestLoop loop;
    const fakes::ScratchFolder folder;
    base::ChildProcesses processes;
    const auto log = folder.path("log");
    int ended = 0;
    constexpr int children = 12;
    for (int i = 0; i < children; ++i) {
        auto one = [](base::ChildProcesses& runner, std::string to, int& count) -> boost::asio::awaitable<void> {
            const auto exit = co_await runner.run(shell("echo + >>" + to + "; sleep 0.1; echo - >>" + to));
            if (exit && exit->status == 0) ++count;
        };
        boost::asio::co_spawn(loop.context, one(processes, log, ended), [](std::exception_ptr) {});
    }
    loop.context.run_for(std::chrono::seconds{60});
    CHECK(ended == children);
    std::ifstream lines{log};
    std::size_t running = 0;
    std::size_t most = 0;
    for (std::string line; std::getline(lines, line);) {
        if (line == "+")
            ++running;
        else
            --running;
        most = std::max(most, running);
    }
    CHECK(running == 0);
    CHECK(most <= base::ChildProcesses::at_once);
}

TEST_CASE("many children at once are all told apart and reaped") {
    fakes::TestLoop loop;
    base::ChildProcesses processes;
    int right = 0;
    constexpr int children = 20;
    for (int i = 0; i < children; ++i) {
        auto one = [](base::ChildProcesses& runner, int number, int& count) -> boost::asio::awaitable<void> {
            const auto exit = co_await runner.run(shell("exit " + std::to_string(number)));
            if (exit && exit->status == number) ++count;
        };
        boost::asio::co_spawn(loop.context, one(processes, i, right), [](std::exception_ptr) {});
    }
    loop.context.run_for(std::chrono::seconds{60});
    CHECK(right == children);
    CHECK(no_children_left());
}
