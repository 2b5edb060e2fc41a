#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

TEST_CASE("a change whose answer was lost with the link is judged by what is so once the link is back") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    REQUIRE(world.post("/v1/vms/web/stop?wait=60").status == 200);
    world.hypervisor->hang("start");
    const auto start = world.post("/v1/vms/web/start");
    REQUIRE(start.status == 202);
    world.hypervisor->fail("start", {base::Errc::hypervisor_unavailable, "the connection broke"}, 1,
                           fakes::FakeHypervisor::When::after_effect);
    world.hypervisor->drop_link("libvirtd is gone");
    world.hypervisor->release("start");
    world.pass(5s);
    const auto href = "/v1/operations/" + start.text("/id");
    CHECK(world.get(href).text("/state") == "running");
    CHECK(world.get(href).at("/stalled").as_bool());
    world.hypervisor->restore_link();
    world.pass(1s);
    CHECK(world.get(href + "?wait=60").text("/state") == "succeeded");
    CHECK(world.get("/v1/vms/web").text("/spec/power") == "on");
}

TEST_CASE("a change that was never done ends with its error once the link is back") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->fail("pause", {base::Errc::hypervisor_unavailable, "the connection broke"});
    const auto pause = world.post("/v1/vms/web/pause?wait=60");
    CHECK(pause.status == 503);
    CHECK(world.get("/v1/vms/web").text("/status/power") == "running");
    CHECK(world.hypervisor->find(id)->power == virt::Power::running);
}

TEST_CASE("creates that hang hold up no others") {
    World world;
    world.config.resources.cpu_overcommit = 100;
    world.boot();
    world.add_image();
    world.hypervisor->hang("ensure_network");
    std::vector<std::string> operations;
    for (int i = 0; i < 12; ++i) {
        const auto create = world.post("/v1/vms", vm_body("vm-" + std::to_string(i), {{"memory_mib", 128}}));
        REQUIRE(create.status == 202);
        operations.push_back("/v1/operations/" + create.text("/id"));
    }
    for (const auto& href : operations) CHECK(world.get(href).at("/stalled").as_bool());
    world.hypervisor->release("ensure_network");
    world.pass(5s);
    for (const auto& href : operations) CHECK(world.get(href).text("/state") == "succeeded");
}
