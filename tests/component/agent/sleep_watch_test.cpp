#include "agent/host/sleep_watch.hpp"

#include "component/agent/world.hpp"
#include "fakes/fake_logind.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <functional>
#include <vector>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace asio = boost::asio;
using News = agent::Logind::News;

namespace {

// A SleepWatch by itself, on virtual time.
struct Watched {
    explicit Watched(bool with_logind = true)
        : watch(loop.get_executor(), with_logind ? &logind : nullptr, clock, log) {
        watch.before_sleep = [this]() -> asio::awaitable<void> {
            ++prepared;
            if (prepare) co_await prepare();
        };
        watch.on_wake = [this](base::Duration slept) { wakes.push_back(slept); };
        asio::co_spawn(loop, watch.run(),
                       asio::bind_cancellation_slot(stop.slot(), [this](const std::exception_ptr&) { ended = true; }));
        pass(0s);
    }
    ~Watched() {
        end();
        for (int n = 0; n < 10 && !ended; ++n) pass(1s);
        CHECK(ended);
    }
    void end() {
        if (!ended) stop.emit(asio::cancellation_type::terminal);
        pass(0s);
    }
    void pass(base::Duration span) { clock.run_for(loop, span); }
    void tell(News news) {
        logind.tell(news);
        pass(0s);
    }
    // As a suspend goes, with logind.
    void sleep(base::Duration span) {
        tell(News::goes_to_sleep);
        clock.sleep(span);
        tell(News::is_awake);
    }

    fakes::VirtualClock clock;
    asio::io_context loop{1};
    test::Recorded logged;
    base::Log log = test::recording_log(logged);
    fakes::FakeLogind logind{loop.get_executor()};
    agent::SleepWatch watch;
    asio::cancellation_signal stop;
    std::function<asio::awaitable<void>()> prepare;
    int prepared = 0;
    std::vector<base::Duration> wakes;
    bool ended = false;
};

using Wakes = std::vector<base::Duration>;

}  // namespace

TEST_CASE("without logind a wake is seen within a second, once") {
    Watched host{false};
    host.pass(1h);
    CHECK(host.wakes.empty());
    host.clock.sleep(8h);
    host.pass(1s);
    CHECK(host.wakes == Wakes{8h});
    host.pass(1h);
    host.clock.sleep(5s);
    host.pass(1s);
    CHECK(host.wakes == Wakes{8h, 5s});
    CHECK(host.prepared == 0);
}

TEST_CASE("the host's sleep waits until those who must know of it know") {
    Watched host;
    REQUIRE(host.logind.inhibited());
    base::Notifier sent{host.loop.get_executor()};
    host.prepare = [&sent]() -> asio::awaitable<void> { co_await sent.wait(); };
    host.tell(News::goes_to_sleep);
    CHECK(host.prepared == 1);
    host.pass(1s);
    CHECK(host.logind.inhibited());
    sent.notify();
    host.pass(0s);
    CHECK_FALSE(host.logind.inhibited());
    host.clock.sleep(8h);
    host.tell(News::is_awake);
    CHECK(host.wakes == Wakes{8h});
    CHECK(host.logind.inhibited());
    host.pass(1min);
    CHECK(host.wakes.size() == 1);
    host.sleep(1h);
    CHECK(host.prepared == 2);  // and this one isn't told of
    host.pass(2s);
    CHECK(host.wakes == Wakes{8h, 1h});
    CHECK(host.logind.inhibited());
    CHECK(host.logind.connects() == 1);
    CHECK(host.logind.locks() == 3);
}

TEST_CASE("the host's sleep never waits for longer than two seconds") {
    Watched host;
    bool cancelled = false;
    SECTION("one that listens is cancelled") {
        host.prepare = [&]() -> asio::awaitable<void> { cancelled = !co_await host.clock.sleep_for(1h); };
    }
    SECTION("one that doesn't is left to itself") {
        host.prepare = [&]() -> asio::awaitable<void> {
            co_await asio::this_coro::throw_if_cancelled(false);
            cancelled = !co_await host.clock.sleep_for(1h);
            co_await host.clock.sleep_for(5s);
        };
    }
    host.tell(News::goes_to_sleep);
    host.pass(1999ms);
    CHECK(host.logind.inhibited());
    CHECK_FALSE(cancelled);
    host.pass(1ms);
    CHECK_FALSE(host.logind.inhibited());
    CHECK(cancelled);
    host.clock.sleep(8h);
    host.tell(News::is_awake);
    CHECK(host.wakes == Wakes{8h});
    CHECK(host.logind.inhibited());
}

TEST_CASE("a wake that the clocks show before logind tells of it is one wake") {
    Watched host;
    host.tell(News::goes_to_sleep);
    host.clock.sleep(8h);
    host.pass(1s);
    CHECK(host.wakes == Wakes{8h});
    host.tell(News::is_awake);
    host.pass(1min);
    CHECK(host.wakes == Wakes{8h});
}

TEST_CASE("a sleep that came to nothing ends as a wake, since others were told of it") {
    Watched host;
    host.tell(News::goes_to_sleep);
    host.pass(3s);
    host.tell(News::is_awake);
    host.pass(1min);
    CHECK(host.wakes == Wakes{0s});
    CHECK(host.logind.inhibited());
}

TEST_CASE("an absent logind is looked for every minute, and one that went away soon") {
    Watched host{false};  // ends its own; the other one below has the logind
    fakes::FakeLogind logind{host.loop.get_executor()};
    logind.go_away();
    agent::SleepWatch watch{host.loop.get_executor(), &logind, host.clock, host.log};
    asio::cancellation_signal stop;
    bool ended = false;
    asio::co_spawn(host.loop, watch.run(),
                   asio::bind_cancellation_slot(stop.slot(), [&](const std::exception_ptr&) { ended = true; }));
    host.pass(10min);
    CHECK(logind.connects() == 11);
    logind.come_back();
    host.pass(1min);
    CHECK(logind.inhibited());
    host.pass(1h);
    CHECK(logind.connects() == 12);
    logind.go_away();
    host.pass(0s);
    CHECK(logind.connects() == 12);
    logind.come_back();
    host.pass(5s);
    CHECK(logind.inhibited());
    stop.emit(asio::cancellation_type::terminal);
    host.pass(0s);
    CHECK(ended);
    CHECK_FALSE(logind.connected());
    CHECK_FALSE(logind.inhibited());
    host.log.flush();
    CHECK(std::ranges::all_of(host.logged.records(),
                              [](const base::Record& record) { return record.level == base::Level::debug; }));
}

TEST_CASE("a logind that doesn't answer is given up and asked again") {
    Watched host;
    host.logind.go_away();
    host.logind.come_back();
    host.logind.fall_silent(true);
    host.pass(5min);
    const auto tried = host.logind.connects();
    CHECK(tried >= 4);
    CHECK(tried <= 7);
    host.clock.sleep(1h);
    host.pass(1s);
    CHECK(host.wakes == Wakes{1h});
    host.logind.fall_silent(false);
    host.pass(80s);
    CHECK(host.logind.inhibited());
}

TEST_CASE("a logind that goes away with the host's sleep under way leaves no wake untold") {
    Watched host;
    host.tell(News::goes_to_sleep);
    host.logind.go_away();
    host.pass(2s);
    CHECK(host.wakes == Wakes{0s});
}

TEST_CASE("where the host's sleep may not be held up, it is told of all the same") {
    Watched host;
    host.logind.refusal = base::Error{base::Errc::forbidden, "not you"};
    host.logind.go_away();
    host.logind.come_back();
    host.pass(6s);
    CHECK(host.logind.connected());
    CHECK_FALSE(host.logind.inhibited());
    host.sleep(8h);
    CHECK(host.prepared == 1);
    CHECK(host.wakes == Wakes{8h});
    CHECK(host.logind.connected());
}

TEST_CASE("a watch that is ended in the middle of a sleep lets the host sleep") {
    Watched host;
    host.prepare = [&]() -> asio::awaitable<void> { co_await host.clock.sleep_for(1h); };
    host.tell(News::goes_to_sleep);
    CHECK(host.logind.inhibited());
    host.end();
    CHECK(host.ended);
    CHECK_FALSE(host.logind.inhibited());
}

TEST_CASE("the agent says when its host sleeps and wakes, and lets go of logind when it stops") {
    World world;
    fakes::FakeLogind logind{world.loop.get_executor()};
    world.logind = &logind;
    world.boot();
    world.settle();
    CHECK(logind.inhibited());
    logind.tell(News::goes_to_sleep);
    world.settle();
    CHECK_FALSE(logind.inhibited());
    world.clock.sleep(8h);
    logind.tell(News::is_awake);
    world.pass(1s);
    CHECK(logind.inhibited());
    world.log.flush();
    const auto messages = world.logged.messages();
    CHECK(std::ranges::count(messages, "the host goes to sleep") == 1);
    CHECK(std::ranges::count(messages, "the host woke up") == 1);
    world.shut_down();
    CHECK_FALSE(logind.connected());
}
