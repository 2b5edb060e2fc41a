#include "agent/host/sleep_watch.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace std::chrono_literals;
using agent::WakeDetector;

TEST_CASE("time that passes while the machine runs is no sleep") {
    WakeDetector wakes{3h};
    for (int n = 0; n < 1000; ++n) CHECK_FALSE(wakes.look(3h));
}

TEST_CASE("a sleep shows at the next look, once, with how long it was") {
    WakeDetector wakes{3h};
    CHECK(wakes.look(11h) == 8h);
    CHECK_FALSE(wakes.look(11h));
    CHECK(wakes.look(11h + 2001ms) == 2001ms);
    CHECK_FALSE(wakes.look(11h + 2001ms));
}

TEST_CASE("what is no longer than two seconds is no sleep, however often it comes") {
    WakeDetector wakes{0s};
    for (int n = 1; n < 100; ++n) CHECK_FALSE(wakes.look(n * 2s));
    CHECK_FALSE(wakes.look(100s));  // smaller: clocks are never read at the same instant
}

TEST_CASE("a sleep that logind told of is one wake, whoever sees it first") {
    WakeDetector wakes{1h};
    wakes.told_of_sleep(1h);
    SECTION("logind") { CHECK(wakes.told_of_wake(9h) == 8h); }
    SECTION("the clocks") {
        CHECK(wakes.look(9h) == 8h);
        CHECK_FALSE(wakes.told_of_wake(9h));
    }
    SECTION("logind, before the clocks show it") {
        CHECK_FALSE(wakes.told_of_wake(1h));
        CHECK(wakes.look(9h) == 8h);
    }
    CHECK_FALSE(wakes.look(9h));
    CHECK_FALSE(wakes.told_of_wake(9h));
    CHECK_FALSE(wakes.look(9h));
    wakes.told_of_sleep(9h);
    CHECK(wakes.told_of_wake(10h) == 1h);
}

TEST_CASE("a sleep that came to nothing, or was short, has a wake if it was told of") {
    WakeDetector wakes{1h};
    wakes.told_of_sleep(1h);
    CHECK_FALSE(wakes.look(1h));
    SECTION("nothing") {
        CHECK_FALSE(wakes.told_of_wake(1h));
        CHECK(wakes.look(1h) == 0s);
    }
    SECTION("short") {
        CHECK_FALSE(wakes.look(1h + 1s));
        CHECK_FALSE(wakes.told_of_wake(1h + 1s));
        CHECK(wakes.look(1h + 1s) == 1s);
    }
    CHECK_FALSE(wakes.look(1h + 1s));
}

TEST_CASE("a wake that nobody announced a sleep for says nothing by itself") {
    WakeDetector wakes{1h};
    CHECK_FALSE(wakes.told_of_wake(1h));
    CHECK_FALSE(wakes.look(1h));
    CHECK(wakes.told_of_wake(2h) == 1h);
}
