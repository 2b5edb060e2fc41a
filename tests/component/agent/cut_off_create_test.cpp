// Creates that a crash, a cancel or a database in trouble cuts off at an unlucky moment.
#include "component/agent/world.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

TEST_CASE("a create that a crash cut off and a cancel reaches before it goes on leaves nothing behind") {
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    world.hypervisor->hang("start");
    const auto begun = world.post("/v1/vms", vm_body("web"));
    REQUIRE(begun.status == 202);
    world.crash();
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("domains"); };
    world.boot();
    const auto href = "/v1/operations/" + begun.text("/id");
    CHECK(world.post(href + "/cancel").status == 202);
    world.hypervisor->release("domains");
    world.pass(20s);
    CHECK(world.get(href).text("/state") == "cancelled");
    CHECK(world.hypervisor->all().empty());
    CHECK(world.files.files() == files_before);
    CHECK(world.store.vms().empty());
}

TEST_CASE("a create whose undo couldn't be journalled before a crash makes again what was taken back") {
    World world;
    world.boot();
    world.add_image();
    int commits = 0;
    // Accepted, then image, disk and seed; its domain's step is the first that fails.
    world.store.on_commit([&](const storage::Changes&) {
        if (++commits == 4) world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    });
    const auto begun =
        world.begin(net::Method::post, "/v1/vms", vm_body("web", {{"disks", {{"data", {{"size_gib", 1}}}}}}));
    REQUIRE(begun->has_value());
    const auto id = (*begun)->text("/target/id");
    const auto disk = "/var/lib/ghost/disks/" + id + "-root.qcow2";
    REQUIRE_FALSE(world.files.exists(disk));
    world.store.on_commit({});
    world.store.fail_always({});
    world.crash();
    world.boot();
    CHECK(world.get("/v1/operations/" + (*begun)->text("/id") + "?wait=60").text("/state") == "succeeded");
    CHECK(world.files.exists(disk));
    CHECK(world.files.exists("/var/lib/ghost/disks/" + id + "-data.qcow2"));
    CHECK(world.files.exists("/var/lib/ghost/disks/" + id + "-seed.iso"));
}

TEST_CASE(
    "a forced stop that ends while a create's end is still being written takes nothing of it back, and keeps its "
    "word") {
    World world;
    world.boot();
    world.add_image();
    int commits = 0;
    // Accepted, then image, disk, seed, define and start; its end is tried again a second later.
    world.store.on_commit([&](const storage::Changes&) {
        if (++commits == 6) world.store.fail_commit(1, {base::Errc::io_error, "no luck"});
    });
    const auto begun = world.post("/v1/vms", vm_body("web"));
    REQUIRE(begun.status == 202);
    const auto id = begun.text("/target/id");
    REQUIRE(world.get("/v1/vms/web").text("/status/power") == "running");
    REQUIRE(world.post("/v1/vms/web/stop", {{"force", true}}).status == 202);
    world.pass(10s);
    CHECK(world.get("/v1/operations/" + begun.text("/id")).text("/state") == "succeeded");
    const auto row = json::parse(world.store.vms().at(id).document);
    CHECK(row.at("phase").as_string() == "ready");
    CHECK(row.at("spec").at("power").as_string() == "off");
    CHECK(world.get("/v1/vms/web").text("/status/phase") == "ready");
}

TEST_CASE("a leftover domain is there until its files are gone, so that it is found again") {
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    world.hypervisor->hang("start");
    const auto begun = world.post("/v1/vms", vm_body("web"));
    REQUIRE(begun.status == 202);
    const auto late = world.hypervisor->all().begin()->second;
    CHECK(world.post("/v1/operations/" + begun.text("/id") + "/cancel?wait=60").status == 200);
    world.hypervisor->release("start");
    REQUIRE(world.hypervisor->all().empty());

    const auto seed = late.disks.back().path;
    world.files.put(seed, "seed");
    world.files.fail_paths("-seed.iso", {base::Errc::io_error, "no luck"});
    world.hypervisor->put(late);
    world.settle();
    world.files.fail_paths("", {});
    world.pass(30s);
    CHECK(world.hypervisor->all().empty());
    CHECK(world.files.files() == files_before);
}
