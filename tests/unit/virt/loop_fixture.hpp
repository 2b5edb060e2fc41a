// A loop to run by hand, calls to watch, and lanes to hold up.
#pragma once

#include "base/clock.hpp"
#include "base/log.hpp"
#include "tests/fakes/seeded_random.hpp"
#include "tests/fakes/virtual_clock.hpp"
#include "virt/lane_pool.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <filesystem>
#include <future>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace ghost::test {

// Long enough to never be met by a slow machine; what should happen ends the wait.
inline constexpr std::chrono::seconds patience{120};

struct Loop {
    boost::asio::io_context context{1};
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{context.get_executor()};

    // Runs the loop until `done()`; false when patience ran out.
    template <class Done>
    [[nodiscard]] bool until(Done done) {
        const auto end = std::chrono::steady_clock::now() + patience;
        while (!done()) {
            if (std::chrono::steady_clock::now() >= end) return false;
            context.run_one_for(std::chrono::milliseconds{20});
        }
        return true;
    }
    // Runs what is ready, and what that makes ready.
    void settle() {
        while (context.poll() != 0) {
        }
    }
};

// A call in flight.
template <class T>
struct Call {
    std::optional<T> result;
    boost::asio::cancellation_signal stop;
    [[nodiscard]] bool done() const { return result.has_value(); }
};
template <>
struct Call<void> {
    bool finished = false;
    boost::asio::cancellation_signal stop;
    [[nodiscard]] bool done() const { return finished; }
};
template <class T>
[[nodiscard]] std::shared_ptr<Call<T>> launch(boost::asio::io_context& context, boost::asio::awaitable<T> task) {
    auto call = std::make_shared<Call<T>>();
    if constexpr (std::is_void_v<T>) {
        boost::asio::co_spawn(context, std::move(task),
                              boost::asio::bind_cancellation_slot(call->stop.slot(), [call](std::exception_ptr error) {
                                  if (error) std::rethrow_exception(error);
                                  call->finished = true;
                              }));
    } else {
        boost::asio::co_spawn(
            context, std::move(task),
            boost::asio::bind_cancellation_slot(call->stop.slot(), [call](std::exception_ptr error, T result) {
                if (error) std::rethrow_exception(error);
                call->result.emplace(std::move(result));
            }));
    }
    return call;
}

// Holds up whoever waits at it, on any thread, until it is opened. Copies are the same gate.
class Gate {
public:
    void open() const {
        if (!state_->opened.exchange(true)) state_->promise.set_value();
    }
    // Counts an arrival, then waits.
    void pass() const {
        ++state_->arrived;
        state_->future.wait();
    }
    [[nodiscard]] int arrived() const { return state_->arrived; }

private:
    struct State {
        std::promise<void> promise;
        std::shared_future<void> future = promise.get_future().share();
        std::atomic<bool> opened{false};
        std::atomic<int> arrived{0};
    };
    std::shared_ptr<State> state_ = std::make_shared<State>();
};

[[nodiscard]] inline std::string thread_name() {
    char name[16] = {};
    pthread_getname_np(pthread_self(), name, sizeof name);
    return name;
}
[[nodiscard]] inline std::ptrdiff_t thread_count() {
    // With the first thread of a process ThreadSanitizer starts one of its own.
    [[maybe_unused]] static const bool first = (std::thread{[] {}}.join(), true);
    return std::distance(std::filesystem::directory_iterator{"/proc/self/task"}, {});
}

template <class Clock>
struct Time {
    Clock clock;
};

// A pool on a loop. Its clock outlives the loop.
template <class Clock>
struct LanesOn : Time<Clock>, Loop {
    fakes::SeededRandom random;
    base::Log log;
    std::vector<std::pair<bool, std::string>> links;  // what on_link was told
    std::unique_ptr<virt::LanePool> pool;
    std::shared_ptr<Call<void>> running;

    // Makes the pool and starts its run(), without waiting for the link.
    void start(virt::LaneOptions options, virt::LaneHooks hooks = {}, std::string uri = "test:///default") {
        pool = std::make_unique<virt::LanePool>(context, std::move(uri), std::move(options), this->clock, random, log);
        hooks.on_link = [this](bool up, std::string reason) { links.emplace_back(up, std::move(reason)); };
        pool->set_hooks(std::move(hooks));
        running = launch(context, pool->run());
    }
    void connect(virt::LaneOptions options, virt::LaneHooks hooks = {}, std::string uri = "test:///default") {
        start(std::move(options), std::move(hooks), std::move(uri));
        REQUIRE(until([this] { return pool->up(); }));
    }
    void close(std::chrono::milliseconds grace = patience) {
        running->stop.emit(boost::asio::cancellation_type::terminal);
        const auto closed = launch(context, pool->close(grace));
        REQUIRE(until([&] { return closed->done() && running->done(); }));
    }
    [[nodiscard]] virt::LaneStats stats(virt::LaneClass lane) const {
        return pool->stats().at(static_cast<std::size_t>(lane));
    }

    // Work that waits at `gate`, then answers `answer`.
    [[nodiscard]] static virt::LanePool::Work<int> held(Gate gate, int answer = 0) {
        return [gate, answer](virConnectPtr) -> base::Result<int> {
            gate.pass();
            return answer;
        };
    }
    [[nodiscard]] static virt::LanePool::Work<int> answering(int answer) {
        return [answer](virConnectPtr) -> base::Result<int> { return answer; };
    }
    // Both have been handed to the pool when they return.
    [[nodiscard]] auto read(virt::LaneClass lane, std::string key, base::Duration limit,
                            virt::LanePool::Work<int> work) {
        auto call = launch(context, pool->read<int>(lane, std::move(key), limit, std::move(work)));
        settle();
        return call;
    }
    [[nodiscard]] auto change(std::string key, base::Duration limit, virt::LanePool::Work<int> work,
                              std::function<void()> stalled = {}) {
        auto call = launch(context, pool->change<int>(virt::LaneClass::mutate, std::move(key), limit, std::move(work),
                                                      std::move(stalled)));
        settle();
        return call;
    }
};

[[nodiscard]] inline base::Errc code_of(const Call<base::Result<int>>& call) {
    REQUIRE(call.done());
    REQUIRE_FALSE(call.result->has_value());
    return call.result->error().code;
}

[[nodiscard]] inline int answer_of(const Call<base::Result<int>>& call) {
    REQUIRE(call.done());
    if (!call.result->has_value()) FAIL(call.result->error().detail);
    return **call.result;
}

using Lanes = LanesOn<fakes::VirtualClock>;
using RealTimeLanes = LanesOn<base::SystemClock>;  // beside a real daemon

}  // namespace ghost::test
