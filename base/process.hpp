// Child processes off the loop's back: started with limits, watched through a
// pidfd, killed with their whole process group at the deadline or when the
// awaiting coroutine is cancelled, and always reaped.
#pragma once

#include "base/error.hpp"
#include "base/notifier.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ghost::base {

struct ProcessLimits {
    std::optional<std::uint64_t> cpu_seconds;    // RLIMIT_CPU
    std::optional<std::uint64_t> address_space;  // RLIMIT_AS, bytes
    std::optional<std::uint64_t> file_size;      // RLIMIT_FSIZE, bytes
    std::optional<std::uint64_t> open_files;     // RLIMIT_NOFILE
};

struct Command {
    std::vector<std::string> argv;  // argv[0] is looked up in PATH; no shell
    std::string input;              // its standard input
    std::chrono::milliseconds deadline{std::chrono::minutes{1}};
    std::size_t max_output = 1024 * 1024;  // of each of stdout and stderr, bytes; more ends the child
    ProcessLimits limits;
};

struct Exit {
    int status = 0;      // exit status, or 128 + signal
    std::string output;  // standard output
    std::string error;   // standard error
};

class ProcessRunner {
public:
    virtual ~ProcessRunner() = default;
    // A child that ran to its end is a value, whatever its status. Errors: not_found (no such program),
    // deadline_exceeded, cancelled, overloaded (output larger than max_output), io_error.
    // Children run in a new process group and with PR_SET_PDEATHSIG, so none outlives the agent (call it from the
    // loop's thread: the signal comes when the thread that started the child ends). What is left of the group when the
    // child ends is killed. At the deadline, on cancellation and on too much output: SIGTERM, and SIGKILL a second
    // later.
    [[nodiscard]] virtual boost::asio::awaitable<Result<Exit>> run(Command command) = 0;
};

// The real one. Of one loop; at most `at_once` children run, the others wait for their turn.
class ChildProcesses final : public ProcessRunner {
public:
    static constexpr std::size_t at_once = 4;

    [[nodiscard]] boost::asio::awaitable<Result<Exit>> run(Command command) override;

private:
    [[nodiscard]] boost::asio::awaitable<Result<Exit>> run_now(Command command);

    std::size_t running_ = 0;
    std::optional<Notifier> ended_;  // made on the loop of the first that waits
};

}  // namespace ghost::base
