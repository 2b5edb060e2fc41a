#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

// The observer reads the VM as it is now, and what it found arrives three seconds from now.
void read_late(World& world, const std::string& id) {
    world.hypervisor->answer_late("domain", 3s);
    world.hypervisor->emit({virt::Event::Kind::domain, id, "defined"});
    world.settle();
    world.hypervisor->answer_late("domain", 0s);
}

}  // namespace

TEST_CASE("a reading that arrives after its VM was deleted doesn't make it known again") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    read_late(world, id);
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=9").status == 200);
    world.pass(20s);
    CHECK(world.get("/v1/vms/" + id).status == 404);
    CHECK(world.store.vms().empty());
    CHECK(world.create_vm() != id);
}

TEST_CASE("a reading that arrives late doesn't put an old power state back") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    read_late(world, id);
    CHECK(world.post("/v1/vms/web/stop?wait=2", json::object{{"force", true}}).status == 200);
    CHECK(world.get("/v1/vms/web").text("/status/power") == "off");
    world.pass(3s);
    CHECK(world.get("/v1/vms/web").text("/status/power") == "off");
}

TEST_CASE("a stop waits for no domain that is just being read, and leaves no reading behind") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->answer_late("domain", 60s);
    world.hypervisor->emit({virt::Event::Kind::domain, id, "defined"});
    world.settle();
    world.shut_down();
    CHECK(world.app == nullptr);
}
