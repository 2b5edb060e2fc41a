// Suspends, whose saves of memory take long.
#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;

namespace {

struct Suspending {
    World world;
    std::string id;
    std::string operation;

    Suspending() {
        world.boot();
        world.add_image();
        id = world.create_vm();
        world.hypervisor->hang("save");
        const auto begun = world.post("/v1/vms/web/suspend");
        REQUIRE(begun.status == 202);
        CHECK(begun.at("/cancellable").as_bool());
        operation = "/v1/operations/" + begun.text("/id");
        world.settle();
    }
    [[nodiscard]] std::string power() { return world.get("/v1/vms/web").text("/status/power"); }
};

}  // namespace

TEST_CASE("a cancelled suspend ends the hypervisor's job, and the VM runs on") {
    Suspending scene;
    auto& world = scene.world;
    const auto ended = world.post(scene.operation + "/cancel?wait=9");
    CHECK(ended.text("/state") == "cancelled");
    CHECK(world.hypervisor->count("abort_job") == 1);
    CHECK(scene.power() == "running");
    world.hypervisor->release("save");
    world.pass(1min);
    CHECK(scene.power() == "running");
    CHECK(world.hypervisor->count("abort_job") == 1);
    CHECK(world.post("/v1/vms/web/suspend?wait=9").text("/status/power") == "suspended");
}

TEST_CASE("a suspend whose job can't be ended is told as it turns out, and its end is asked for again") {
    Suspending scene;
    auto& world = scene.world;
    world.hypervisor->fail("abort_job", {base::Errc::hypervisor_error, "no luck"}, fakes::FakeHypervisor::always);
    CHECK(world.post(scene.operation + "/cancel").status == 202);
    world.pass(10s);
    CHECK(world.get(scene.operation).text("/state") == "running");
    CHECK(world.hypervisor->count("abort_job") >= 10);
    SECTION("it comes to its end") {
        world.hypervisor->release("save");
        CHECK(world.get(scene.operation + "?wait=9").text("/state") == "succeeded");
        CHECK(scene.power() == "suspended");
    }
    SECTION("it can be ended after all") {
        world.hypervisor->heal("abort_job");
        CHECK(world.get(scene.operation + "?wait=9").text("/state") == "cancelled");
        CHECK(scene.power() == "running");
    }
    const auto asked = world.hypervisor->count("abort_job");
    world.pass(1min);
    CHECK(world.hypervisor->count("abort_job") == asked);
}

TEST_CASE("a stop of the agent while a VM is suspended ends no job of the hypervisor's") {
    Suspending scene;
    auto& world = scene.world;
    world.shut_down();
    CHECK(world.hypervisor->count("abort_job") == 0);
    world.boot();
    CHECK(world.get(scene.operation + "?wait=9").text("/state") == "succeeded");
    CHECK(scene.power() == "suspended");
}

TEST_CASE("a suspend cut off by a crash is gone on with, or has succeeded when the VM is so") {
    const bool is_so = GENERATE(false, true);
    CAPTURE(is_so);
    Suspending scene;
    auto& world = scene.world;
    const auto id = scene.id;
    world.crash();
    if (is_so)
        world.before_boot = [&](fakes::FakeHypervisor& hypervisor) {
            hypervisor.set_power(id, virt::Power::suspended, "saved");
        };
    world.boot();
    CHECK(world.get(scene.operation + "?wait=60").text("/state") == "succeeded");
    CHECK(world.hypervisor->count("save") == (is_so ? 0 : 1));
    CHECK(scene.power() == "suspended");
    CHECK(world.get("/v1/vms/web").text("/spec/power") == "on");
}

TEST_CASE("a suspend whose save goes on without the agent ends when that does") {
    const bool saved = GENERATE(true, false);
    CAPTURE(saved);
    Suspending scene;
    auto& world = scene.world;
    const auto id = scene.id;
    world.crash();
    world.before_boot = [&](fakes::FakeHypervisor& hypervisor) {
        hypervisor.set_power(id, virt::Power::paused, "save");
        hypervisor.fail("save", {base::Errc::state_conflict, "cannot acquire state change lock"},
                        fakes::FakeHypervisor::always);
    };
    world.boot();
    world.pass(2min);
    CHECK(world.get(scene.operation).text("/state") == "running");
    CHECK(world.get(scene.operation).at("/stalled").as_bool());
    world.hypervisor->set_power(id, saved ? virt::Power::suspended : virt::Power::running,
                                saved ? "saved" : "save_canceled");
    CHECK(world.get(scene.operation + "?wait=9").text("/state") == (saved ? "succeeded" : "failed"));
}
