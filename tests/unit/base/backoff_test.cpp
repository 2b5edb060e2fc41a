#include "base/backoff.hpp"

#include "tests/fakes/seeded_random.hpp"

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

TEST_CASE("backoff doubles up to its cap, each wait in the upper half of its step, and starts over after a reset") {
    ghost::fakes::SeededRandom random;
    ghost::base::Backoff backoff{1s, 30s};
    for (const auto step : {1s, 2s, 4s, 8s, 16s, 30s, 30s}) {
        const auto wait = backoff.next(random);
        CHECK(wait >= step / 2.0);
        CHECK(wait <= step);
    }
    backoff.reset();
    CHECK(backoff.next(random) <= 1s);
}
