#include "base/ids.hpp"

#include "tests/fakes/seeded_random.hpp"
#include "tests/fakes/virtual_clock.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <set>
#include <vector>

using namespace ghost;
using namespace std::chrono_literals;

TEST_CASE("a new UUID has version 7, the variant of RFC 9562 and the time in front") {
    fakes::VirtualClock clock{base::from_unix_ms(0x0123456789ab)};
    fakes::SeededRandom random;
    for (int i = 0; i < 200; ++i) {
        const auto id = base::make_uuid(clock, random);
        REQUIRE(base::is_uuid(id));
        CHECK(id.substr(0, 13) == "01234567-89ab");
        CHECK(id[14] == '7');
        CHECK(std::string_view{"89ab"}.find(id[19]) != std::string_view::npos);
        CHECK(std::ranges::none_of(id, [](char c) { return c >= 'A' && c <= 'F'; }));
    }
}

TEST_CASE("UUIDs sort by the millisecond they were made in and differ within one") {
    fakes::VirtualClock clock;
    fakes::SeededRandom random;
    std::vector<std::string> made;
    for (int i = 0; i < 100; ++i) {
        made.push_back(base::make_uuid(clock, random));
        clock.advance(1ms);
    }
    CHECK(std::ranges::is_sorted(made));

    std::set<std::string> same_time;
    for (int i = 0; i < 1000; ++i) same_time.insert(base::make_uuid(clock, random));
    CHECK(same_time.size() == 1000);
}

TEST_CASE("only the form of a UUID passes for one") {
    CHECK(base::is_uuid("0123abcd-ABCD-4000-8000-0123456789ab"));
    CHECK_FALSE(base::is_uuid(""));
    CHECK_FALSE(base::is_uuid("0123abcd-abcd-4000-8000-0123456789a"));
    CHECK_FALSE(base::is_uuid("0123abcd-abcd-4000-8000-0123456789abc"));
    CHECK_FALSE(base::is_uuid("0123abcdxabcd-4000-8000-0123456789ab"));
    CHECK_FALSE(base::is_uuid("0123abcg-abcd-4000-8000-0123456789ab"));
}

TEST_CASE("a trace context has an id of its trace and of its parent, never all zero") {
    struct Zeros final : base::Random {
        void fill(std::span<std::byte> out) override { std::ranges::fill(out, std::byte{0}); }
    } zeros;
    CHECK(base::make_traceparent(zeros) == "00-00000000000000000000000000000001-0000000000000001-00");
    fakes::SeededRandom random;
    std::set<std::string> made;
    for (int i = 0; i < 100; ++i) made.insert(base::make_traceparent(random));
    CHECK(made.size() == 100);
    CHECK(std::ranges::all_of(made, [](const std::string& trace) { return trace.size() == 55; }));
}

TEST_CASE("a MAC is one of QEMU's and a seed repeats it") {
    fakes::SeededRandom first{42};
    fakes::SeededRandom second{42};
    const auto mac = base::make_mac(first);
    CHECK(mac.size() == 17);
    CHECK(mac.substr(0, 9) == "52:54:00:");
    CHECK(mac == base::make_mac(second));
    CHECK(mac != base::make_mac(first));
}

TEST_CASE("random fractions stay below one") {
    fakes::SeededRandom random;
    double highest = 0;
    double lowest = 1;
    for (int i = 0; i < 10'000; ++i) {
        const auto value = random.uniform();
        highest = std::max(highest, value);
        lowest = std::min(lowest, value);
    }
    CHECK(highest < 1);
    CHECK(highest > 0.99);
    CHECK(lowest >= 0);
    CHECK(lowest < 0.01);
}
