#include "storage/worker_pool.hpp"

#include "fakes/awaiting.hpp"

#include <catch2/catch.hpp>

#include <pthread.h>

#include <array>
#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace ghost;
using base::Errc;

TEST_CASE("a job runs on a thread of the pool, by its name, and its coroutine goes on on the loop") {
    fakes::TestLoop loop;
    storage::WorkerPool pool{"disk", 2};
    auto task = [](storage::WorkerPool& workers) -> boost::asio::awaitable<base::Result<std::string>> {
        const auto loop_thread = std::this_thread::get_id();
        auto job = []() -> base::Result<std::string> {
            std::array<char, 16> name{};
            ::pthread_getname_np(::pthread_self(), name.data(), name.size());
            return std::string{name.data()};
        };
        auto name = co_await workers.run(std::move(job));
        if (std::this_thread::get_id() != loop_thread) co_return base::fail(Errc::internal, "resumed elsewhere");
        co_return name;
    };
    CHECK(loop.await(task(pool)) == "disk");
    CHECK(pool.queued() == 0);
}

TEST_CASE("an exception of a job reaches the coroutine that awaits it") {
    fakes::TestLoop loop;
    storage::WorkerPool pool{"disk", 1};
    auto job = []() -> base::Result<int> { throw std::runtime_error{"bug"}; };
    CHECK_THROWS_WITH(loop.await(pool.run(job)), "bug");
    CHECK(pool.queued() == 0);
}

TEST_CASE("a full queue refuses at once") {
    fakes::TestLoop loop;
    storage::WorkerPool pool{"disk", 1, 2};
    std::promise<void> gate;
    auto wait = [opened = gate.get_future().share()]() -> base::Result<int> {
        opened.wait();
        return 1;
    };
    int finished = 0;
    for (int i = 0; i < 2; ++i)
        boost::asio::co_spawn(loop.context, pool.run(wait), [&](std::exception_ptr, base::Result<int>) { ++finished; });
    loop.context.poll();
    CHECK(pool.queued() == 2);
    auto quick = []() -> base::Result<int> { return 1; };
    const auto refused = loop.await(pool.run(quick));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::overloaded);
    gate.set_value();
    loop.context.restart();
    loop.context.run_for(std::chrono::seconds{30});
    CHECK(finished == 2);
}

TEST_CASE("a cancellation doesn't recall a job: its result arrives") {
    fakes::TestLoop loop;
    storage::WorkerPool pool{"disk", 1};
    std::promise<void> gate;
    auto wait = [opened = gate.get_future().share()]() -> base::Result<int> {
        opened.wait();
        return 42;
    };
    boost::asio::post(loop.context, [&] {
        boost::asio::post(loop.context, [&] {
            loop.cancel();
            gate.set_value();
        });
    });
    CHECK(loop.await(pool.run(wait)) == 42);
}

TEST_CASE("a stoppable job sees the cancellation of its coroutine") {
    fakes::TestLoop loop;
    storage::WorkerPool pool{"disk", 1};
    std::atomic<bool> started{false};
    auto spin = [&](const std::atomic<bool>& stop) -> base::Result<int> {
        started = true;
        while (!stop) std::this_thread::yield();
        return base::fail(Errc::cancelled, "stopped");
    };
    std::function<void()> when_started = [&] {
        if (started)
            loop.cancel();
        else
            boost::asio::post(loop.context, when_started);
    };
    boost::asio::post(loop.context, when_started);
    const auto stopped = loop.await(pool.run_stoppable(spin));
    REQUIRE_FALSE(stopped);
    CHECK(stopped.error().code == Errc::cancelled);
}

TEST_CASE("a pool that goes finishes what was queued") {
    fakes::TestLoop loop;
    std::atomic<int> ran{0};
    {
        storage::WorkerPool pool{"disk", 1};
        for (int i = 0; i < 50; ++i) {
            auto count = [&ran]() -> base::Result<int> { return ++ran; };
            boost::asio::co_spawn(loop.context, pool.run(count), [](std::exception_ptr, base::Result<int>) {});
        }
        loop.context.poll();
    }
    CHECK(ran == 50);
    loop.context.restart();
    loop.context.run_for(std::chrono::seconds{30});  // the coroutines end after the pool
}

TEST_CASE("without threads jobs run on the loop's own, in order, and are finished with the pool") {
    fakes::TestLoop loop;
    std::vector<int> ran;
    int resumed = 0;
    const auto here = std::this_thread::get_id();
    {
        storage::WorkerPool pool{"store", 0};
        const auto start = [&](int number) {
            auto job = [&ran, number, here]() -> base::Result<int> {
                if (std::this_thread::get_id() == here) ran.push_back(number);
                return number;
            };
            boost::asio::co_spawn(loop.context, pool.run(job),
                                  [&](std::exception_ptr, base::Result<int>) { ++resumed; });
        };
        start(1);
        start(2);
        CHECK(ran.empty());
        loop.context.poll();
        CHECK(ran == std::vector{1, 2});
        CHECK(resumed == 2);
        CHECK(pool.queued() == 0);
        loop.context.restart();
        start(3);
        start(4);
        loop.context.poll_one();  // 3 is queued
        loop.context.poll_one();  // 4 is queued
        CHECK(ran.size() == 2);
    }
    CHECK(ran == std::vector{1, 2, 3, 4});
    loop.context.poll();
    CHECK(resumed == 4);
}
