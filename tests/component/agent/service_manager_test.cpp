#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <vector>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;

namespace {

// A world whose service manager wants to hear from the agent every two seconds.
struct Told {
    std::vector<std::string> told;
};
struct Service : Told, World {  // in this order: the world's end is told, too
    Service() {
        service_manager.tell = [this](const std::string& state) { told.push_back(state); };
        service_manager.interval = 2s;
    }
    [[nodiscard]] auto count(std::string_view prefix) const {
        return std::ranges::count_if(told, [&](const auto& state) { return state.starts_with(prefix); });
    }
};

}  // namespace

TEST_CASE("the service manager hears READY after the first reading, then as often as it asked, then STOPPING") {
    Service world;
    world.boot();
    CHECK(world.count("READY=1") == 1);
    world.told.clear();
    world.pass(21s);
    CHECK(world.count("WATCHDOG=1") == 10);
    world.shut_down();
    CHECK(world.told.back() == "STOPPING=1");
}

TEST_CASE("while the hypervisor can't be read the agent asks for more time to start, and says why") {
    Service world;
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("domains"); };
    world.boot();
    world.pass(5min);
    CHECK(world.count("READY=1") == 0);
    CHECK(world.count("EXTEND_TIMEOUT_USEC=6000000\nSTATUS=Not ready: the hypervisor's domains are being read") >= 149);
    world.hypervisor->release("domains");
    world.pass(30s);
    CHECK(world.count("READY=1") == 1);
}

TEST_CASE("a start that is broken off says nothing of being ready") {
    Service world;
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("domains"); };
    world.boot();
    world.pass(10s);
    world.shut_down();
    CHECK(world.count("READY=1") == 0);
    CHECK(world.told.back() == "STOPPING=1");
}
