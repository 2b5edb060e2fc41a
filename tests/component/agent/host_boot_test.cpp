#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

// The host goes down and comes up again: every domain is off, and calls of `hanging` hang.
void boot_host(World& world, const std::string& boot_id, const std::string& hanging = {}) {
    world.shut_down();
    world.files.put(World::boot_id_file, boot_id + "\n");
    world.before_boot = [&hanging](fakes::FakeHypervisor& hypervisor) {
        for (const auto& [id, domain] : hypervisor.all()) hypervisor.set_power(id, virt::Power::off, "shutdown");
        if (!hanging.empty()) hypervisor.hang(hanging);
    };
    world.boot();
    world.before_boot = {};
    world.pass(1s);
}

std::string power(World& world, const std::string& name) { return world.get("/v1/vms/" + name).text("/status/power"); }

}  // namespace

TEST_CASE("after a boot of the host what was wanted on comes back, and nothing else") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm("last");
    world.create_vm("stopped");
    CHECK(world.post("/v1/vms/stopped/stop?wait=60").status == 200);
    CHECK(world.post("/v1/vms?wait=60", vm_body("never", {{"autostart", "never"}})).status == 201);
    boot_host(world, "second");
    CHECK(power(world, "last") == "running");
    CHECK(power(world, "stopped") == "off");
    CHECK(power(world, "never") == "off");
    const auto op = world.get("/v1/operations?kind=vm.start").at("/items/0");
    CHECK(op.at("requested_by").as_string() == "agent");
    CHECK(world.store.facts().at("boot_id") == "second");
}

TEST_CASE("a restart of the agent alone starts nothing, whatever is wanted") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm("last");
    world.hypervisor->guest_powers_off(id);
    world.settle();
    world.shut_down();
    world.boot();
    world.pass(1s);
    CHECK(power(world, "last") == "off");
    CHECK(world.get("/v1/vms/last").text("/spec/power") == "on");
}

TEST_CASE("a boot during which the agent was killed counts until all was asked for") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm("last");
    boot_host(world, "second", "domains");
    world.crash();
    world.boot();
    world.pass(1s);
    CHECK(power(world, "last") == "running");
}

TEST_CASE("a boot during which the agent was killed counts until all was started") {
    const bool crash = GENERATE(true, false);
    World world;
    world.boot();
    world.add_image();
    world.create_vm("last");
    boot_host(world, "second", "start");
    REQUIRE(world.hypervisor->count("start") == 1);
    if (crash)
        world.crash();
    else
        world.shut_down();
    world.boot();
    world.pass(1s);
    CHECK(power(world, "last") == "running");
    CHECK(world.store.facts().at("boot_id") == "second");
}
