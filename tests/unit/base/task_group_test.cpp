#include "base/task_group.hpp"

#include "tests/fakes/virtual_clock.hpp"
#include "tests/unit/base/recording_sink.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>
#include <catch2/catch.hpp>

#include <stdexcept>
#include <string>
#include <vector>

using namespace ghost;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

struct Group {
    fakes::VirtualClock clock;
    asio::io_context loop;
    test::Recorded recorded;
    base::Log log = test::recording_log(recorded);
    base::TaskGroup tasks{loop.get_executor(), log};
    bool drained = false;
    std::vector<std::string> seen;

    void settle() {
        loop.restart();
        while (loop.poll() != 0) {
        }
    }
    void drain() {
        asio::co_spawn(
            loop,
            [this]() -> asio::awaitable<void> {
                co_await tasks.drain();
                drained = true;
            },
            asio::detached);
    }
    asio::awaitable<void> sleep(std::string name, base::Duration span) {
        seen.push_back(name + (co_await clock.sleep_for(span) ? " done" : " cancelled"));
    }
};

asio::awaitable<void> throws(std::string what) {
    throw std::runtime_error{what};
    co_return;
}

}  // namespace

TEST_CASE_METHOD(Group, "a group counts its tasks and drains when the last has ended") {
    tasks.spawn("a", sleep("a", 1s));
    tasks.spawn("b", sleep("b", 2s));
    drain();
    settle();
    CHECK(tasks.size() == 2);
    clock.advance(1s);
    settle();
    CHECK(tasks.size() == 1);
    CHECK_FALSE(drained);
    clock.advance(1s);
    settle();
    CHECK(drained);
    CHECK(seen == std::vector<std::string>{"a done", "b done"});
}

TEST_CASE_METHOD(Group, "an empty group drains at once") {
    drain();
    settle();
    CHECK(drained);
}

TEST_CASE_METHOD(Group, "cancelling a group ends every task, and that is no error") {
    for (int i = 0; i < 5; ++i) tasks.spawn("sleeper", sleep("s", 1h));
    settle();
    tasks.cancel();
    drain();
    settle();
    CHECK(drained);
    CHECK(seen == std::vector<std::string>(5, "s cancelled"));
    log.flush();
    CHECK(recorded.messages().empty());
}

TEST_CASE_METHOD(Group, "a total cancellation reaches a task too") {
    tasks.spawn("sleeper", sleep("s", 1h));
    settle();
    tasks.cancel(asio::cancellation_type::total);
    settle();
    CHECK(tasks.size() == 0);
}

TEST_CASE_METHOD(Group, "a task's exception is logged under its name and ends only that task") {
    tasks.spawn("faulty", throws("the reason"));
    tasks.spawn("healthy", sleep("h", 1s));
    settle();
    CHECK(tasks.size() == 1);
    log.flush();
    const auto records = recorded.records();
    REQUIRE(records.size() == 1);
    CHECK(records[0].level == base::Level::error);
    const auto line = base::message_with_fields(records[0]);
    CHECK(line.find("task=faulty") != std::string::npos);
    CHECK(line.find("the reason") != std::string::npos);
    clock.advance(1s);
    drain();
    settle();
    CHECK(drained);
}

TEST_CASE_METHOD(Group, "tasks spawned while draining are waited for as well") {
    tasks.spawn("first", [](Group& group) -> asio::awaitable<void> {
        static_cast<void>(co_await group.clock.sleep_for(1s));
        group.tasks.spawn("second", group.sleep("second", 1s));
    }(*this));
    drain();
    settle();
    clock.advance(1s);
    settle();
    CHECK_FALSE(drained);
    clock.advance(1s);
    settle();
    CHECK(drained);
    CHECK(seen == std::vector<std::string>{"second done"});
}
