#include "base/clock.hpp"

#include "tests/fakes/virtual_clock.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include <string>
#include <vector>

using namespace ghost;
using namespace std::chrono_literals;
namespace asio = boost::asio;

TEST_CASE("times are written as RFC 3339 in UTC") {
    CHECK(base::rfc3339(base::from_unix_ms(1'767'323'045'678)) == "2026-01-02T03:04:05Z");
    CHECK(base::rfc3339_ms(base::from_unix_ms(1'767'323'045'678)) == "2026-01-02T03:04:05.678Z");
    CHECK(base::rfc3339_ms(base::from_unix_ms(1'767'323'045'007)) == "2026-01-02T03:04:05.007Z");
    CHECK(base::rfc3339_ms(base::from_unix_ms(0)) == "1970-01-01T00:00:00.000Z");
    CHECK(base::rfc3339_ms(base::from_unix_ms(-1)) == "1969-12-31T23:59:59.999Z");
    CHECK(base::rfc3339(base::from_unix_ms(951'782'400'000)) == "2000-02-29T00:00:00Z");
}

TEST_CASE("milliseconds since the epoch lead there and back") {
    for (const std::int64_t ms : {0LL, 1LL, -1LL, 1'767'323'045'678LL})
        CHECK(base::to_unix_ms(base::from_unix_ms(ms)) == ms);
}

TEST_CASE("the machine's clock says whether the time came or the sleeper was cancelled") {
    asio::io_context loop;
    base::SystemClock clock;
    asio::cancellation_signal stop;
    std::vector<std::string> seen;
    const auto sleeper = [&](base::Duration span) -> asio::awaitable<void> {
        seen.emplace_back(co_await clock.sleep_for(span) ? "reached" : "cancelled");
    };
    asio::co_spawn(loop, sleeper(1ms), asio::detached);
    loop.run();
    loop.restart();
    asio::co_spawn(loop, sleeper(1h), asio::bind_cancellation_slot(stop.slot(), asio::detached));
    loop.poll();
    stop.emit(asio::cancellation_type::terminal);
    loop.run();
    CHECK(seen == std::vector<std::string>{"reached", "cancelled"});
}

TEST_CASE("a machine that isn't suspended isn't asleep any longer") {
    base::SystemClock clock;
    const auto asleep = clock.asleep();
    CHECK(asleep >= 0s);
    for (int n = 0; n < 1000; ++n) CHECK(std::chrono::abs(clock.asleep() - asleep) < 1s);
}

namespace {

struct VirtualTime {
    fakes::VirtualClock clock;
    asio::io_context loop;
    std::vector<std::string> seen;

    asio::awaitable<void> sleep(std::string name, base::Duration span) {
        const auto reached = co_await clock.sleep_for(span);
        seen.push_back(name + (reached ? "" : " cancelled"));
    }
    void start(std::string name, base::Duration span) {
        asio::co_spawn(loop, sleep(std::move(name), span), asio::detached);
    }
    void settle() {
        loop.restart();
        loop.poll();
    }
};

}  // namespace

TEST_CASE_METHOD(VirtualTime, "virtual time stands still until it is moved") {
    start("a", 1s);
    settle();
    CHECK(seen.empty());
    CHECK(clock.sleepers() == 1);
    clock.advance(999ms);
    settle();
    CHECK(seen.empty());
    clock.advance(1ms);
    settle();
    CHECK(seen == std::vector<std::string>{"a"});
    CHECK(clock.sleepers() == 0);
}

TEST_CASE_METHOD(VirtualTime, "virtual time wakes sleepers in the order of their times, equals as they came") {
    start("late", 3s);
    start("early", 1s);
    start("also late", 3s);
    start("middle", 2s);
    start("after", 10s);
    settle();
    clock.advance(5s);
    settle();
    CHECK(seen == std::vector<std::string>{"early", "middle", "late", "also late"});
    CHECK(clock.next() == clock.now() + 5s);
    clock.advance(5s);
    settle();
    CHECK(seen.back() == "after");
}

TEST_CASE_METHOD(VirtualTime, "both virtual clocks move together, and only the wall's can be set") {
    const auto wall = clock.wall();
    const auto now = clock.now();
    clock.advance(90s);
    CHECK(clock.wall() - wall == 90s);
    CHECK(clock.now() - now == 90s);
    clock.set_wall(wall);
    CHECK(clock.wall() == wall);
    CHECK(clock.now() - now == 90s);
}

TEST_CASE_METHOD(VirtualTime, "while the machine is suspended only the wall's clock moves, and how long shows") {
    const auto wall = clock.wall();
    const auto now = clock.now();
    start("a", 1s);
    settle();
    CHECK(clock.asleep() == 0s);
    clock.sleep(8h);
    settle();
    CHECK(seen.empty());
    CHECK(clock.wall() - wall == 8h);
    CHECK(clock.now() == now);
    CHECK(clock.asleep() == 8h);
    clock.sleep(1min);
    clock.advance(1s);
    settle();
    CHECK(seen == std::vector<std::string>{"a"});
    CHECK(clock.asleep() == 8h + 1min);
}

TEST_CASE_METHOD(VirtualTime, "a sleeper on virtual time can be cancelled and leaves nothing behind") {
    asio::cancellation_signal stop;
    asio::co_spawn(loop, sleep("a", 1h), asio::bind_cancellation_slot(stop.slot(), asio::detached));
    settle();
    REQUIRE(clock.sleepers() == 1);
    stop.emit(asio::cancellation_type::terminal);
    settle();
    CHECK(seen == std::vector<std::string>{"a cancelled"});
    CHECK(clock.sleepers() == 0);
    clock.advance(2h);
    settle();
    CHECK(seen.size() == 1);
}

TEST_CASE_METHOD(VirtualTime, "a time in the past is reached at once, without moving the clock") {
    start("now", 0s);
    start("past", -1s);
    settle();
    CHECK(seen.size() == 2);
}

TEST_CASE_METHOD(VirtualTime, "running for a span lets a sleeper sleep again within it") {
    std::vector<base::Duration> ticks;
    const auto begin = clock.now();
    asio::co_spawn(
        loop,
        [&]() -> asio::awaitable<void> {
            for (int i = 0; i < 100; ++i) {
                co_await clock.sleep_for(7s);
                ticks.push_back(clock.now() - begin);
            }
        },
        asio::detached);
    clock.run_for(loop, 1min);
    CHECK(ticks == std::vector<base::Duration>{7s, 14s, 21s, 28s, 35s, 42s, 49s, 56s});
    CHECK(clock.now() - begin == 1min);
}

TEST_CASE("a loop that ends with sleepers on virtual time destroys them cleanly") {
    fakes::VirtualClock clock;
    {
        asio::io_context loop;
        asio::co_spawn(
            loop, [&clock]() -> asio::awaitable<void> { static_cast<void>(co_await clock.sleep_for(1h)); },
            asio::detached);
        loop.poll();
        REQUIRE(clock.sleepers() == 1);
    }
    CHECK(clock.sleepers() == 0);
}

TEST_CASE("times are read as they are written") {
    const auto noon = base::from_unix_ms(1'767'355'200'000);
    CHECK(base::wall_from_rfc3339("2026-01-02T12:00:00Z") == noon);
    CHECK(base::wall_from_rfc3339("2026-01-02t12:00:00z") == noon);
    CHECK(base::wall_from_rfc3339("2026-01-02T12:00:00.250Z") == noon + 250ms);
    CHECK(base::wall_from_rfc3339("2026-01-02T12:00:00.123456789Z") == noon + 123ms);
    // Beyond what our clock can tell.
    CHECK(base::wall_from_rfc3339("9999-12-31T23:59:59Z") == base::Wall::max());
    CHECK(base::wall_from_rfc3339("2262-04-11T00:00:00Z") < base::Wall::max());
    CHECK(base::wall_from_rfc3339("2300-01-01T00:00:00-12:00") == base::Wall::max());
    CHECK(base::wall_from_rfc3339("0001-01-01T00:00:00Z") == base::Wall::min());
    CHECK(base::wall_from_rfc3339("2026-01-02T14:00:00+02:00") == noon);
    CHECK(base::wall_from_rfc3339("2026-01-02T06:30:00-05:30") == noon);
    CHECK(base::wall_from_rfc3339(base::rfc3339_ms(noon + 1ms)) == noon + 1ms);
}

TEST_CASE("what is no time isn't read as one") {
    const auto* bad =
        GENERATE("", "soon", "2026-01-02", "2026-01-02T12:00:00", "2026-13-02T12:00:00Z", "2026-02-30T12:00:00Z",
                 "2026-01-02T24:00:00Z", "2026-01-02T12:60:00Z", "2026-01-02T12:00:00.Z", "2026-01-02T12:00:00+2:00",
                 "2026-01-02T12:00:00Zx", "26-01-02T12:00:00Z", "2026-01-02T12:00:00+25:00");
    INFO(bad);
    CHECK_FALSE(base::wall_from_rfc3339(bad));
}
