#include "agent/guest/guest_places.hpp"

#include <catch2/catch.hpp>

#include <optional>
#include <vector>

using namespace ghost;
using namespace ghost::agent;

TEST_CASE("places are given in each VM and in all, and come back") {
    std::optional<GuestPlaces> places{std::in_place, "programs", 2, 3};
    auto a1 = places->take("a");
    const auto a2 = places->take("a");
    CHECK(a1);
    CHECK(a2);
    const auto full = places->take("a");
    REQUIRE_FALSE(full);
    CHECK(full.error().code == base::Errc::overloaded);
    CHECK(full.error().detail.contains("2 programs"));
    const auto b1 = places->take("b");
    CHECK(b1);
    REQUIRE_FALSE(places->take("c"));
    CHECK(places->take("c").error().detail.contains("3 programs"));
    a1->reset();
    auto c1 = places->take("c");
    CHECK(c1);
    // They may outlive what gave them.
    places.reset();
    c1->reset();
}
