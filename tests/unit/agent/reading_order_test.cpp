#include "agent/vm/reading_order.hpp"

#include <catch2/catch.hpp>

#include <optional>

using ghost::agent::ReadingOrder;
using Reading = ReadingOrder::Reading;

TEST_CASE("of two readings the one asked for later wins, whichever answers first") {
    ReadingOrder order;
    const Reading first{order};
    const Reading second{order};
    CHECK(second.accept("a"));
    CHECK_FALSE(first.accept("a"));
    CHECK(first.accept("b"));
    CHECK(second.accept("b"));
    CHECK(second.accept("b"));
}

TEST_CASE("a reading from before a deletion says nothing about the deleted domain, one from after it does") {
    ReadingOrder order;
    const Reading before{order};
    order.deleted("a");
    CHECK_FALSE(before.accept("a"));
    CHECK(before.accept("b"));
    const Reading after{order};
    CHECK(after.accept("a"));
}

TEST_CASE("domains are remembered only while an older reading is under way") {
    ReadingOrder order;
    order.deleted("nobody reads");
    CHECK(order.remembered() == 0);
    std::optional<Reading> slow{std::in_place, order};
    {
        const Reading quick{order};
        CHECK(quick.accept("a"));
        order.deleted("b");
    }
    CHECK(order.remembered() == 2);
    CHECK(slow->accept("c"));
    {
        const Reading later{order};
        slow.reset();
        CHECK(order.remembered() == 0);
        CHECK(later.accept("a"));
    }
    CHECK(order.remembered() == 0);
}
