#include "base/process.hpp"

#include "base/clock.hpp"
#include "base/spawn.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <memory>

namespace ghost::base {
namespace {

namespace asio = boost::asio;
using Stream = asio::posix::stream_descriptor;

constexpr std::chrono::milliseconds longest = std::chrono::hours{24 * 365};
constexpr std::chrono::seconds term_grace{1};   // between SIGTERM and SIGKILL
constexpr std::chrono::seconds kill_grace{5};   // for a killed child that hangs in the kernel: then it is reaped later
constexpr std::chrono::seconds drain_grace{1};  // for pipes that someone outside the group still holds open

// One child and the coroutines that watch it. Shared by them, so that a child which outlasts its run() is still reaped.
class Run : public std::enable_shared_from_this<Run> {
public:
    Run(const asio::any_io_executor& executor, Spawned child, std::size_t max_output)
        : wake_(executor),
          output_(executor, child.output.release()),
          error_(executor, child.error.release()),
          failure_(executor, child.failure.release()),
          pidfd_(executor, child.pidfd.release()),
          pid_(child.pid),
          max_output_(max_output) {}
    ~Run() {
        if (reaped_) return;
        ::kill(-pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    void start() {
        watch(read_all(output_, exit_.output));
        watch(read_all(error_, exit_.error));
        watch(read_failure());
        watch(reap());
    }

    // Resumes when the child is reaped and its pipes have ended, or when it can't be waited for any longer.
    asio::awaitable<Result<Exit>> finish(std::chrono::milliseconds deadline) {
        limit_ = std::chrono::steady_clock::now() + std::min(deadline, longest);
        co_await asio::this_coro::throw_if_cancelled(false);
        while (open_ > 0) {
            wake_.expires_at(limit_);
            co_await wake_.async_wait(asio::as_tuple(asio::use_awaitable));
            if (open_ == 0) break;
            const auto state = co_await asio::this_coro::cancellation_state;
            if (state.cancelled() != asio::cancellation_type::none) end_with(Errc::cancelled, "cancelled");
            if (std::chrono::steady_clock::now() >= limit_ && !next_phase()) break;
        }
        co_return outcome();
    }

private:
    enum class Phase : std::uint8_t { running, terminating, killed, draining };

    void watch(asio::awaitable<void> task) {
        ++open_;
        asio::co_spawn(wake_.get_executor(), std::move(task), [self = shared_from_this()](std::exception_ptr thrown) {
            --self->open_;
            if (thrown) self->end_with(Errc::io_error, "reading from a child process failed");
            self->wake_.cancel();
        });
    }

    asio::awaitable<void> read_all(Stream& from, std::string& into) {
        std::array<char, 16384> buffer{};
        for (;;) {
            const auto [ec, count] =
                co_await from.async_read_some(asio::buffer(buffer), asio::as_tuple(asio::use_awaitable));
            if (into.size() + count > max_output_) {
                end_with(Errc::overloaded, "it wrote more than " + std::to_string(max_output_) + " bytes");
                co_return;
            }
            into.append(buffer.data(), count);
            if (ec) co_return;  // the end, or closed by us
        }
    }

    asio::awaitable<void> read_failure() {
        std::array<char, sizeof(int)> buffer{};
        const auto [ec, count] =
            co_await failure_.async_read_some(asio::buffer(buffer), asio::as_tuple(asio::use_awaitable));
        if (!ec && count == sizeof exec_errno_) std::memcpy(&exec_errno_, buffer.data(), sizeof exec_errno_);
    }

    asio::awaitable<void> reap() {
        // A wake may be stray (of the descriptor that had the number before): only the kernel's word counts.
        while (!ended()) {
            const auto [ec] = co_await pidfd_.async_wait(Stream::wait_read, asio::as_tuple(asio::use_awaitable));
            if (ec) break;  // it can't be watched: then it is killed and waited for
        }
        // While the leader is a zombie its number can't be given to others: now is the time to end what it left behind.
        ::kill(-pid_, SIGKILL);
        int status = 0;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
        }
        reaped_ = true;
        exit_.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        phase_ = Phase::draining;
        limit_ = std::chrono::steady_clock::now() + drain_grace;
    }

    [[nodiscard]] bool ended() const {
        siginfo_t info = {};
        return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_;
    }

    // The first reason stands.
    void end_with(Errc code, std::string detail) {
        if (verdict_) return;
        verdict_ = Error{code, std::move(detail)};
        if (phase_ == Phase::running) terminate();
        wake_.cancel();
    }

    void terminate() {
        ::kill(-pid_, SIGTERM);
        phase_ = Phase::terminating;
        limit_ = std::chrono::steady_clock::now() + term_grace;
    }

    // What the limit's passing means; false: wait no more.
    bool next_phase() {
        switch (phase_) {
            case Phase::running: end_with(Errc::deadline_exceeded, "it took longer than it may"); return true;
            case Phase::terminating:
                ::kill(-pid_, SIGKILL);
                phase_ = Phase::killed;
                limit_ = std::chrono::steady_clock::now() + kill_grace;
                return true;
            case Phase::killed:
            case Phase::draining: break;
        }
        for (auto* pipe : {&output_, &error_, &failure_}) {
            boost::system::error_code ignored;
            pipe->close(ignored);
        }
        return false;
    }

    Result<Exit> outcome() {
        if (verdict_) return fail(std::move(*verdict_));
        if (exec_errno_ == ENOENT) return fail(Errc::not_found, "no such program");
        if (exec_errno_ != 0) return fail(errno_error(exec_errno_, "cannot execute it"));
        return std::move(exit_);
    }

    asio::steady_timer wake_;  // fires at limit_; cancelled when there is something to look at
    Stream output_;
    Stream error_;
    Stream failure_;
    Stream pidfd_;
    pid_t pid_;
    std::size_t max_output_;
    int open_ = 0;  // watching coroutines
    Phase phase_ = Phase::running;
    Instant limit_;
    bool reaped_ = false;
    int exec_errno_ = 0;
    std::optional<Error> verdict_;
    Exit exit_;
};

}  // namespace

asio::awaitable<Result<Exit>> ChildProcesses::run(Command command) {
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    const auto cancelled = [](const asio::cancellation_state& state) {
        return state.cancelled() != asio::cancellation_type::none;
    };
    if (!ended_) ended_.emplace(co_await asio::this_coro::executor);
    while (running_ >= at_once && !cancelled(co_await asio::this_coro::cancellation_state)) co_await ended_->wait();
    if (cancelled(co_await asio::this_coro::cancellation_state)) {
        ended_->notify();  // its turn, if it was, is another's
        co_await asio::this_coro::throw_if_cancelled(throws);
        co_return fail(Errc::cancelled, "cancelled");
    }
    ++running_;
    auto result = co_await run_now(std::move(command));
    --running_;
    ended_->notify();
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return result;
}

asio::awaitable<Result<Exit>> ChildProcesses::run_now(Command command) {
    const auto name = command.argv.empty() ? std::string{"?"} : command.argv.front();
    auto child = spawn(command);
    if (!child) co_return fail(std::move(child).error());
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    const auto executor = co_await asio::this_coro::executor;
    const auto running = std::make_shared<Run>(executor, std::move(*child), command.max_output);
    running->start();
    auto result = co_await running->finish(command.deadline);
    co_await asio::this_coro::throw_if_cancelled(throws);
    if (!result) result.error().detail = name + ": " + result.error().detail;
    co_return result;
}

}  // namespace ghost::base
