#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <variant>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

bool erases_a_vm(const storage::Changes& changes) {
    return std::ranges::any_of(changes, [](const auto& c) { return std::holds_alternative<storage::EraseVm>(c); });
}

// Sends a forced stop of "web" at the very moment its row is erased, when the index still has it.
std::shared_ptr<std::optional<Reply>> stop_while_erased(World& world, const std::function<void()>& erase) {
    std::shared_ptr<std::optional<Reply>> reply;
    world.store.on_commit([&](const storage::Changes& changes) {
        if (!reply && erases_a_vm(changes))
            reply = world.send(net::Method::post, "/v1/vms/web/stop?wait=9", json::object{{"force", true}});
    });
    erase();
    world.pass(20s);
    world.store.on_commit({});
    return reply;
}

void check_gone(World& world) {
    CHECK(world.get("/v1/vms/web").status == 404);
    CHECK(world.store.vms().empty());
    world.shut_down();
    world.boot();
    CHECK(world.get("/v1/vms/web").status == 404);
    CHECK(world.post("/v1/vms?wait=9", vm_body("web")).status == 201);
}

// Stops "web" by force while `call` hangs, and lets that come back then.
void stop_before(World& world, std::string_view call) {
    world.settle();
    CHECK(world.post("/v1/vms/web/stop?wait=9", {{"force", true}}).status == 200);
    world.hypervisor->release(call);
    world.settle();
}

}  // namespace

TEST_CASE("a forced stop in the moment a failed create is undone doesn't bring its row back") {
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->fail("start", {base::Errc::hypervisor_error, "no luck"});
    const auto stop = stop_while_erased(world, [&] { world.post("/v1/vms?wait=9", vm_body("web")); });
    REQUIRE(stop);
    CHECK(stop->has_value());
    check_gone(world);
}

TEST_CASE("a forced stop in the moment a VM is deleted doesn't bring its row back") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    const auto stop = stop_while_erased(world, [&] { world.call(net::Method::del, "/v1/vms/web?wait=9"); });
    REQUIRE(stop);
    CHECK(stop->has_value());
    check_gone(world);
}

TEST_CASE("a forced stop is the last word while a restart waits for its guest") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->on_shutdown(id, fakes::FakeHypervisor::Shutdown::ignore);
    const auto restart = world.begin(net::Method::post, "/v1/vms/web/restart?wait=60", json::object{{"timeout_s", 30}});
    world.pass(2s);
    CHECK(world.post("/v1/vms/web/stop?wait=9", {{"force", true}}).status == 200);
    world.pass(5s);
    REQUIRE(restart->has_value());
    CHECK((*restart)->status == 409);
    CHECK((*restart)->text("/code") == "state_conflict");
    const auto vm = world.get("/v1/vms/web");
    CHECK(vm.text("/status/power") == "off");
    CHECK(vm.text("/spec/power") == "off");
    CHECK(world.hypervisor->count("start") == 1);
}

TEST_CASE("a forced stop that comes before a new VM's start leaves it off") {
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->hang("ensure_network");
    const auto create = world.begin(net::Method::post, "/v1/vms?wait=60", vm_body("web"));
    stop_before(world, "ensure_network");
    REQUIRE(create->has_value());
    CHECK((*create)->status == 201);
    CHECK((*create)->text("/status/power") == "off");
    CHECK((*create)->text("/spec/power") == "off");
    CHECK(world.hypervisor->count("start") == 0);
}

TEST_CASE("a change that fails after a forced stop doesn't take the stop back") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("resize");
    world.hypervisor->fail("resize", {base::Errc::hypervisor_error, "no luck"}, 1,
                           fakes::FakeHypervisor::When::after_effect);
    const auto patch =
        world.begin(net::Method::patch, "/v1/vms/web?wait=60", json::object{{"spec", {{"memory_mib", 1024}}}});
    stop_before(world, "resize");
    REQUIRE(patch->has_value());
    CHECK((*patch)->status == 502);
    const auto vm = world.get("/v1/vms/web");
    CHECK(vm.text("/spec/power") == "off");
    CHECK(vm.at("/spec/memory_mib").as_int64() == 512);
}
