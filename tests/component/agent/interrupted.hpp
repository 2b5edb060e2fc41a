// What tests of restarts and crashes have in common.
#pragma once

#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

namespace ghost::tests {

// What was begun before the agent was restarted ended with it.
inline void check_interrupted(World& world, const Reply& begun) {
    const auto op = world.get("/v1/operations/" + begun.text("/id") + "?wait=60");
    CHECK(op.text("/state") == "failed");
    CHECK(op.text("/error/code") == "interrupted");
}

}  // namespace ghost::tests
