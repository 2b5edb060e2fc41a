#include "agent/host/io_resumer.hpp"

#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

constexpr std::uint64_t gib = 1ULL << 30;

agent::Vm stopped_by_a_write() {
    agent::Vm vm;
    vm.phase = agent::Phase::ready;
    vm.observed.present = true;
    vm.observed.power = virt::Power::paused;
    vm.observed.power_reason = "io_error";
    vm.plan.root_disk = "/pool/a.qcow2";
    return vm;
}

// A VM "web" whose disk is on a file system without room.
std::string create_stopped(World& world) {
    world.boot();
    world.add_image();
    auto id = world.create_vm();
    world.files.set_capacity(world.files.used());
    world.hypervisor->set_power(id, virt::Power::paused, "io_error");
    world.settle();
    return id;
}

bool shows_storage_fault(World& world) {
    return json::serialize(world.get("/v1/vms/web").at("/status/conditions")).contains("StorageFault");
}

}  // namespace

TEST_CASE("only a VM that is wanted on and stands still by a failed write waits for room") {
    CHECK(agent::waits_for_room(stopped_by_a_write()));
    auto paused = stopped_by_a_write();
    paused.observed.power_reason = "user";
    CHECK_FALSE(agent::waits_for_room(paused));
    auto running = stopped_by_a_write();
    running.observed.power = virt::Power::running;
    CHECK_FALSE(agent::waits_for_room(running));
    auto unwanted = stopped_by_a_write();
    unwanted.spec.power_on = false;
    CHECK_FALSE(agent::waits_for_room(unwanted));
    auto others = stopped_by_a_write();
    others.managed = false;
    CHECK_FALSE(agent::waits_for_room(others));
    auto leaving = stopped_by_a_write();
    leaving.phase = agent::Phase::deleting;
    CHECK_FALSE(agent::waits_for_room(leaving));
}

TEST_CASE("there is room with a GiB free, or with a fiftieth of a small disk") {
    CHECK(agent::has_room({.total = 1000 * gib, .free = gib}));
    CHECK_FALSE(agent::has_room({.total = 1000 * gib, .free = gib - 1}));
    CHECK(agent::has_room({.total = 5 * gib, .free = gib / 10}));
    CHECK_FALSE(agent::has_room({.total = 5 * gib, .free = gib / 11}));
    CHECK_FALSE(agent::has_room({.total = 0, .free = 0}));
}

TEST_CASE("every directory that a VM has disks in is looked at once") {
    auto vm = stopped_by_a_write();
    vm.plan.disks = {{"data", "/pool/a-data.qcow2"}, {"more", "/elsewhere/a-more.qcow2"}};
    CHECK(agent::disk_directories(vm) == std::vector<std::string>{"/elsewhere", "/pool"});
    CHECK(agent::disk_directories(agent::Vm{}).empty());
    vm.observed.disk_paths = {"/moved/a-snapshot.qcow2", "/elsewhere/a-more.qcow2"};
    CHECK(agent::disk_directories(vm) == std::vector<std::string>{"/elsewhere", "/moved"});
}

TEST_CASE("a guest that stands still by a full disk goes on when there is room again") {
    World world;
    const auto id = create_stopped(world);
    CHECK(shows_storage_fault(world));
    world.pass(10min);
    CHECK(world.hypervisor->count("resume") == 0);
    CHECK(world.hypervisor->find(id)->power == virt::Power::paused);
    world.files.set_capacity(world.files.used() + 200 * gib);
    world.pass(10s);
    CHECK(world.hypervisor->find(id)->power == virt::Power::running);
    CHECK(world.get("/v1/vms/web").text("/status/power") == "running");
    CHECK_FALSE(shows_storage_fault(world));
    CHECK(world.get("/v1/operations").at("/items").as_array().size() == 2);  // the image's and the create
}

TEST_CASE("a guest that stops again at once is tried once a minute") {
    World world;
    const auto id = create_stopped(world);
    world.files.set_capacity(world.files.used() + 200 * gib);
    std::size_t last = 0;
    for (int n = 0; n < 60; ++n) {
        world.pass(5s);
        if (world.hypervisor->count("resume") == last) continue;
        last = world.hypervisor->count("resume");
        world.hypervisor->set_power(id, virt::Power::paused, "io_error");
    }
    CHECK(last >= 4);
    CHECK(last <= 6);
}

TEST_CASE("a resume that hangs holds up nobody else's") {
    World world;
    const auto id = create_stopped(world);
    world.hypervisor->hang("resume");
    world.files.set_capacity(world.files.used() + 200 * gib);
    world.pass(10s);
    CHECK(world.hypervisor->count("resume") == 1);
    const auto other = world.create_vm("other");
    world.hypervisor->set_power(other, virt::Power::paused, "io_error");
    world.pass(10s);
    CHECK(world.hypervisor->count("resume") == 2);
    world.hypervisor->release("resume");
    world.settle();
    CHECK(world.hypervisor->find(id)->power == virt::Power::running);
    CHECK(world.hypervisor->find(other)->power == virt::Power::running);
}

TEST_CASE("a VM that an operation is busy with, or that somebody paused, is left alone") {
    World world;
    const auto id = create_stopped(world);
    world.hypervisor->on_shutdown(id, fakes::FakeHypervisor::Shutdown::ignore);
    SECTION("paused by somebody") { world.hypervisor->set_power(id, virt::Power::paused, "user"); }
    SECTION("being saved") {
        world.hypervisor->hang("save");
        CHECK(world.post("/v1/vms/web/suspend").status == 202);
    }
    world.files.set_capacity(world.files.used() + 200 * gib);
    world.pass(3min);
    CHECK(world.hypervisor->count("resume") == 0);
    world.hypervisor->release("save");
    world.settle();
}
