#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
namespace json = boost::json;

TEST_CASE("a disk that has grown stays so when the rest of its change fails") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    REQUIRE(world.post("/v1/vms/web/stop?wait=60", {{"force", true}}).status == 200);
    world.hypervisor->fail("start", {base::Errc::hypervisor_error, "no luck"});
    const auto failed = world.call(net::Method::patch, "/v1/vms/web?wait=60",
                                   json::object{{"spec", {{"disk_gib", 9}, {"vcpus", 2}, {"power", "on"}}}});
    CHECK(failed.status == 502);
    const auto vm = world.get("/v1/vms/web");
    CHECK(vm.at("/spec/disk_gib").as_int64() == 9);
    CHECK(vm.at("/spec/vcpus").as_int64() == 1);
    world.crash();
    world.boot();
    CHECK(world.get("/v1/vms/web").at("/spec/disk_gib").as_int64() == 9);
}

TEST_CASE("a suspended VM isn't resized under its saved memory") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    REQUIRE(world.post("/v1/vms/web/suspend?wait=60").status == 200);
    const auto refused = world.call(net::Method::patch, "/v1/vms/web", json::object{{"spec", {{"memory_mib", 256}}}});
    CHECK(refused.status == 409);
    CHECK(refused.text("/code") == "state_conflict");
    CHECK(world.call(net::Method::patch, "/v1/vms/web?wait=60", json::object{{"labels", {{"a", "b"}}}}).status == 200);
}

TEST_CASE("a network that was mended is seen without a new connection") {
    World world;
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) {
        hypervisor.fail("ensure_network", {base::Errc::hypervisor_error, "the address range is in use"});
    };
    world.boot();
    CHECK(world.get("/health").text("/checks/network/status") == "degraded");
    world.pass(std::chrono::seconds{40});
    CHECK(world.get("/health").text("/checks/network/status") == "up");
}
