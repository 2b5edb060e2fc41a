#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;

namespace {

bool says_disk_missing(World& world) {
    const auto vm = world.get("/v1/vms/web");
    const auto& conditions = vm.at("/status/conditions").as_array();
    return std::ranges::any_of(conditions, [](const auto& c) {
        return c.at("type") == "DiskMissing" && c.at("status") == "true" && c.at("reason") == "file_not_found";
    });
}

struct Scene {
    World world;
    std::string disk;

    Scene() {
        world.boot();
        world.add_image();
        const auto id = world.create_vm();
        disk = world.config.state_dir + "/disks/" + id + "-root.qcow2";
        REQUIRE(world.files.exists(disk));
        world.pass(6min);
        REQUIRE_FALSE(says_disk_missing(world));
    }
};

}  // namespace

TEST_CASE("a VM whose disk's file is gone says so within minutes, and when it is there again") {
    Scene scene;
    auto& world = scene.world;
    const auto watcher = world.watch();
    world.files.erase(scene.disk);
    world.pass(5min);
    CHECK(says_disk_missing(world));
    CHECK(std::ranges::count(watcher->types(), "vm.updated") == 1);
    world.files.put(scene.disk, "a disk");
    world.pass(5min);
    CHECK_FALSE(says_disk_missing(world));
}

TEST_CASE("a disk's file that is gone when the agent starts or connects is told of at once") {
    const bool crash = GENERATE(true, false);
    Scene scene;
    auto& world = scene.world;
    if (crash)
        world.crash();
    else
        world.hypervisor->drop_link("gone");
    world.files.erase(scene.disk);
    if (crash)
        world.boot();
    else
        world.hypervisor->restore_link();
    world.settle();
    CHECK(says_disk_missing(world));
}

TEST_CASE("a disk that can't be looked at isn't called missing") {
    Scene scene;
    scene.world.files.fail_paths("-root", {base::Errc::io_error, "no luck"});
    scene.world.pass(6min);
    CHECK_FALSE(says_disk_missing(scene.world));
}

TEST_CASE("a VM whose disk's file is gone can be deleted") {
    Scene scene;
    auto& world = scene.world;
    world.files.erase(scene.disk);
    world.pass(5min);
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=9").status == 200);
    CHECK(world.get("/v1/vms/web").status == 404);
}
