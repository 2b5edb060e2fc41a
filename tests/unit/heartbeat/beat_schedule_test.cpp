#include "heartbeat/beat_schedule.hpp"

#include "fakes/seeded_random.hpp"
#include "heartbeat/retry.hpp"

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using namespace ghost;
using heartbeat::BeatSchedule;
using heartbeat::Reason;
using heartbeat::Retry;

namespace {

constexpr base::Instant start{1h};

// One whose last beat was sent and answered at `start`, long after a change.
BeatSchedule at_rest(base::Random& random) {
    BeatSchedule schedule;
    schedule.sent(start);
    schedule.answered(start, 60s, random);
    return schedule;
}

}  // namespace

TEST_CASE("the next beat comes within the last seventh of the time to live", "[heartbeat]") {
    fakes::SeededRandom random;
    auto earliest = 1h, latest = 0h;
    base::Duration first = earliest, last = latest;
    for (int i = 0; i < 2000; ++i) {
        auto schedule = at_rest(random);
        first = std::min<base::Duration>(first, schedule.due() - start);
        last = std::max<base::Duration>(last, schedule.due() - start);
        CHECK(schedule.reason() == Reason::periodic);
    }
    CHECK(first >= 51s);
    CHECK(first < 52s);
    CHECK(last <= 60s);
    CHECK(last > 59s);
}

TEST_CASE("a change is told after 200 ms of quiet", "[heartbeat]") {
    fakes::SeededRandom random;
    auto schedule = at_rest(random);
    const auto later = start + 10s;
    schedule.changed(later);
    CHECK(schedule.due() == later + 200ms);
    schedule.changed(later + 150ms);
    CHECK(schedule.due() == later + 350ms);
    CHECK(schedule.reason() == Reason::change);
}

TEST_CASE("changes without a pause are told once a second", "[heartbeat]") {
    fakes::SeededRandom random;
    auto schedule = at_rest(random);
    auto now = start + 10s;
    int beats = 0;
    for (int i = 0; i < 100; ++i, now += 100ms) {
        schedule.changed(now);
        if (schedule.due() > now) continue;
        schedule.sent(now);
        schedule.answered(now, 60s, random);
        ++beats;
    }
    CHECK(beats >= 8);
    CHECK(beats <= 10);
}

TEST_CASE("a change right after a beat waits for its second", "[heartbeat]") {
    fakes::SeededRandom random;
    auto schedule = at_rest(random);
    schedule.changed(start + 10ms);
    CHECK(schedule.due() == start + 1s);
}

TEST_CASE("what a lost beat was to tell is told with the next", "[heartbeat]") {
    fakes::SeededRandom random;
    auto schedule = at_rest(random);
    SECTION("a change") {
        schedule.changed(start + 5s);
        schedule.sent(start + 6s);
        schedule.lost();
        CHECK(schedule.reason() == Reason::change);
    }
    SECTION("a wake") {
        schedule.ask(Reason::wake, start + 5s);
        schedule.sent(start + 5s);
        schedule.lost();
        CHECK(schedule.reason() == Reason::wake);
    }
    SECTION("but not that it was about to sleep") {
        schedule.ask(Reason::suspend, start + 5s);
        schedule.sent(start + 5s);
        schedule.lost();
        CHECK(schedule.reason() == Reason::periodic);
    }
}

TEST_CASE("of two reasons the weightier is told, and a wake ends a suspend", "[heartbeat]") {
    fakes::SeededRandom random;
    auto schedule = at_rest(random);
    schedule.changed(start + 5s);
    schedule.ask(Reason::network, start + 6s);
    schedule.ask(Reason::wake, start + 7s);
    CHECK(schedule.reason() == Reason::wake);
    schedule.ask(Reason::suspend, start + 6s);
    CHECK(schedule.reason() == Reason::suspend);
    schedule.ask(Reason::wake, start + 6s);
    CHECK(schedule.reason() == Reason::wake);
}

TEST_CASE("the first beat after an outage isn't brought forward by a change", "[heartbeat]") {
    fakes::SeededRandom random;
    BeatSchedule schedule;
    schedule.due_at(start + 20s);
    schedule.changed(start + 1s);
    CHECK(schedule.due() == start + 20s);
    schedule.ask(Reason::wake, start + 2s);
    CHECK(schedule.due() == start + 2s);
}

TEST_CASE("a time to live that can't be meant is bounded", "[heartbeat]") {
    fakes::SeededRandom random;
    BeatSchedule schedule;
    schedule.sent(start);
    schedule.answered(start, 0s, random);
    CHECK(schedule.due() >= start + 850ms);
    schedule.answered(start, 1000h, random);
    CHECK(schedule.due() <= start + 1h);
}

TEST_CASE("a retry waits anywhere up to a doubling bound", "[heartbeat]") {
    fakes::SeededRandom random;
    for (unsigned failures = 0; failures < 14; ++failures) {
        base::Duration longest{};
        base::Duration shortest = 1h;
        for (int i = 0; i < 500; ++i) {
            Retry retry;
            for (unsigned n = 0; n < failures; ++n) (void)retry.after_failure(random, {});
            const auto wait = retry.after_failure(random, {});
            longest = std::max(longest, wait);
            shortest = std::min(shortest, wait);
        }
        const auto bound = std::min<base::Duration>(5min, 1s * (1U << std::min(failures, 9U)));
        CHECK(longest <= bound);
        CHECK(longest > bound / 2);
        CHECK(shortest < bound / 4);
    }
}

TEST_CASE("nothing is tried before Core has asked for it", "[heartbeat]") {
    fakes::SeededRandom random;
    Retry retry;
    for (int i = 0; i < 200; ++i) {
        const auto wait = retry.after_failure(random, 30s);
        CHECK(wait >= 30s);
        CHECK(wait <= 5min);
    }
    CHECK(Retry{}.after_failure(random, 1000h) < 2h);
    retry.succeeded();
    CHECK(retry.after_failure(random, {}) <= 1s);
}
