#include "component/agent/interrupted.hpp"
#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

TEST_CASE("a create cut off by a crash at any step is gone on with at the next start") {
    const auto call = GENERATE(as<std::string>{}, "define", "ensure_network", "start");
    const bool again = GENERATE(false, true);  // and by another one
    CAPTURE(call, again);
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    world.hypervisor->hang(call);
    const auto begun = world.post("/v1/vms", vm_body("web", {{"disks", {{"data", {{"size_gib", 1}}}}}}));
    REQUIRE(begun.status == 202);
    world.crash();
    if (again) {
        world.before_boot = [&](fakes::FakeHypervisor& hypervisor) { hypervisor.hang(call); };
        world.boot();
        world.crash();
        world.before_boot = {};
    }

    world.boot();
    const auto op = world.get("/v1/operations/" + begun.text("/id") + "?wait=60");
    CHECK(op.text("/state") == "succeeded");
    CHECK(world.hypervisor->all().size() == 1);
    const auto vm = world.get("/v1/vms/web");
    CHECK(vm.text("/status/phase") == "ready");
    CHECK(vm.text("/status/power") == "running");
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    CHECK(world.files.files() == files_before);
}

TEST_CASE("a create cut off before its secret user_data was used can't be gone on with, and is undone") {
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    world.files.fail_paths("-seed.iso", base::Error{base::Errc::io_error, "no luck"});
    // The undo is what the crash finds it at.
    auto body = vm_body("web", {{"cloud_init", {{"user_data", "#cloud-config"}}}});
    int commits = 0;
    world.store.on_commit([&](const storage::Changes&) {
        if (++commits == 3) world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    });
    const auto begun = world.begin(net::Method::post, "/v1/vms", body);
    REQUIRE(begun->has_value());
    world.store.on_commit({});
    world.store.fail_always({});
    world.files.fail_paths("", {});
    world.crash();
    world.boot();
    check_interrupted(world, **begun);
    CHECK(world.files.files() == files_before);
    CHECK(world.store.vms().empty());
    CHECK(world.post("/v1/vms?wait=60", body).status == 201);
}

TEST_CASE("a create that was being undone or cancelled at the crash is undone to the end") {
    const bool cancelled = GENERATE(false, true);
    CAPTURE(cancelled);
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    world.hypervisor->hang("undefine");
    if (cancelled)
        world.hypervisor->hang("start");
    else
        world.hypervisor->fail("start", {base::Errc::hypervisor_error, "no luck"});
    const auto begun = world.post("/v1/vms", vm_body("web"));
    REQUIRE(begun.status == 202);
    const auto href = "/v1/operations/" + begun.text("/id");
    if (cancelled) CHECK(world.post(href + "/cancel").status == 202);
    world.crash();
    world.boot();
    const auto op = world.get(href + "?wait=60");
    CHECK(op.text("/state") == (cancelled ? "cancelled" : "failed"));
    CHECK(op.text("/error/code") == (cancelled ? "cancelled" : "hypervisor_error"));
    CHECK(world.hypervisor->all().empty());
    CHECK(world.files.files() == files_before);
    CHECK(world.store.vms().empty());
}

TEST_CASE("a create or start that libvirt is still busy with at the next start is waited for") {
    const bool created = GENERATE(false, true);
    const bool fails = GENERATE(false, true);
    CAPTURE(created, fails);
    World world;
    world.boot();
    world.add_image();
    if (!created) {
        world.create_vm();
        CHECK(world.post("/v1/vms/web/stop?wait=60").status == 200);
    }
    world.hypervisor->hang("start");
    const auto begun = created ? world.post("/v1/vms", vm_body("web")) : world.post("/v1/vms/web/start");
    REQUIRE(begun.status == 202);
    const auto id = world.hypervisor->all().begin()->first;
    world.crash();
    world.before_boot = [&](fakes::FakeHypervisor& hypervisor) {
        hypervisor.set_power(id, virt::Power::paused, "starting_up");
    };
    world.boot();
    const auto href = "/v1/operations/" + begun.text("/id");
    CHECK(world.get(href).text("/state") == "running");
    world.pass(5s);
    world.hypervisor->set_power(id, fails ? virt::Power::off : virt::Power::running, fails ? "failed" : "booted");
    world.pass(1s);
    const auto ended = world.get(href + "?wait=60");
    // An accepted create is gone on with; an agent's start starts nothing else.
    const bool runs = created || !fails;
    CHECK(ended.text("/state") == (runs ? "succeeded" : "failed"));
    CHECK(world.get("/v1/vms/web").text("/status/power") == (runs ? "running" : "off"));
}
