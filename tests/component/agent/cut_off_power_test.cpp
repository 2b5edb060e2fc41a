// Power verbs that a crash cut off: gone on with, or judged by what is so.
#include "component/agent/interrupted.hpp"
#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
using Shutdown = fakes::FakeHypervisor::Shutdown;

TEST_CASE("a start cut off by a crash isn't wanted any more, or has succeeded when the VM runs") {
    const bool runs = GENERATE(false, true);
    CAPTURE(runs);
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    CHECK(world.post("/v1/vms/web/stop?wait=60").status == 200);
    world.hypervisor->hang("start");
    const auto begun = world.post("/v1/vms/web/start");
    REQUIRE(begun.status == 202);
    CHECK(world.get("/v1/vms/web").text("/spec/power") == "on");
    world.crash();
    if (runs)
        world.before_boot = [&](fakes::FakeHypervisor& hypervisor) {
            hypervisor.set_power(id, virt::Power::running, "booted");
        };
    world.boot();
    const auto op = world.get("/v1/operations/" + begun.text("/id") + "?wait=60");
    CHECK(op.text("/state") == (runs ? "succeeded" : "failed"));
    CHECK(world.get("/v1/vms/web").text("/spec/power") == (runs ? "on" : "off"));
    CHECK(world.get("/v1/vms/web").text("/status/power") == (runs ? "running" : "off"));
}

TEST_CASE("a pause or resume cut off by a crash has succeeded when the VM is so") {
    struct Verb {
        std::string name;
        std::string call;
        virt::Power before;
        virt::Power after;
    };
    const auto verb = GENERATE(as<Verb>{}, Verb{"pause", "pause", virt::Power::running, virt::Power::paused},
                               Verb{"resume", "resume", virt::Power::paused, virt::Power::running});
    const bool is_so = GENERATE(false, true);
    CAPTURE(verb.name, is_so);
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    if (verb.before == virt::Power::paused) CHECK(world.post("/v1/vms/web/pause?wait=60").status == 200);
    world.hypervisor->hang(verb.call);
    const auto begun = world.post("/v1/vms/web/" + verb.name);
    REQUIRE(begun.status == 202);
    world.crash();
    world.before_boot = [&](fakes::FakeHypervisor& hypervisor) {
        hypervisor.set_power(id, is_so ? verb.after : verb.before, "unknown");
    };
    world.boot();
    if (is_so)
        CHECK(world.get("/v1/operations/" + begun.text("/id") + "?wait=60").text("/state") == "succeeded");
    else
        check_interrupted(world, begun);
    const auto vm = world.get("/v1/vms/web");
    CHECK(vm.text("/status/power") == virt::name_of(is_so ? verb.after : verb.before));
    CHECK(vm.text("/spec/power") == "on");
}

TEST_CASE("a restart cut off by a crash is gone on with once its VM was to be powered off") {
    const auto call = GENERATE(as<std::string>{}, "power_off", "ensure_network", "start");
    const bool done = GENERATE(false, true);  // by the hypervisor, when nobody was there to be told
    CAPTURE(call, done);
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->hang(call);
    const auto begun = world.post("/v1/vms/web/restart", {{"force", true}});
    REQUIRE(begun.status == 202);
    world.crash();
    if (done && call != "ensure_network")
        world.before_boot = [&](fakes::FakeHypervisor& hypervisor) {
            hypervisor.set_power(id, call == "start" ? virt::Power::running : virt::Power::off, "unknown");
        };
    world.boot();
    const auto op = world.get("/v1/operations/" + begun.text("/id") + "?wait=60");
    CHECK(op.text("/state") == "succeeded");
    CHECK(world.hypervisor->count("power_off") == (call == "power_off" && !done ? 1 : 0));
    CHECK(world.hypervisor->count("start") == (call == "start" && done ? 0 : 1));
    const auto vm = world.get("/v1/vms/web");
    CHECK(vm.text("/status/power") == "running");
    CHECK(vm.text("/spec/power") == "on");
}

TEST_CASE("a restart that is gone on with shows its VM as it is, not as it was seen while it started") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->hang("start");
    const auto begun = world.post("/v1/vms/web/restart", {{"force", true}});
    REQUIRE(begun.status == 202);
    world.crash();
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("start"); };
    world.boot();
    world.hypervisor->set_power(id, virt::Power::paused, "starting_up");
    world.settle();
    CHECK(world.get("/v1/vms/web").text("/status/power") == "paused");
    world.hypervisor->lose_events(true);  // those that tell otherwise may come later than the answer
    world.hypervisor->set_power(id, virt::Power::off, "unknown");
    world.hypervisor->release("start");
    const auto op = world.get("/v1/operations/" + begun.text("/id") + "?wait=60");
    CHECK(op.text("/state") == "succeeded");
    CHECK(world.get("/v1/vms/web").text("/status/power") == "running");
}

TEST_CASE("a restart cut off by a crash while it asked the guest asks on, and the VM runs in the end") {
    const bool off = GENERATE(false, true);
    CAPTURE(off);
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->on_shutdown(id, Shutdown::ignore);
    const auto begun = world.post("/v1/vms/web/restart", {{"timeout_s", 60}});
    REQUIRE(begun.status == 202);
    world.pass(20s);
    world.crash();
    world.before_boot = [&](fakes::FakeHypervisor& hypervisor) {
        hypervisor.on_shutdown(id, Shutdown::ignore);
        if (off) hypervisor.set_power(id, virt::Power::off, "shutdown");
    };
    world.boot();
    const auto operation = "/v1/operations/" + begun.text("/id");
    if (!off) {
        world.pass(30s);
        CHECK(world.hypervisor->count("request_shutdown") > 0);
        CHECK(world.hypervisor->count("power_off") == 0);
    }
    CHECK(world.get(operation + "?wait=60").text("/state") == "succeeded");
    CHECK(world.hypervisor->count("power_off") == (off ? 0 : 1));
    CHECK(world.hypervisor->count("start") == 1);
    CHECK(world.get("/v1/vms/web").text("/status/power") == "running");
}

TEST_CASE("a restart that a crash cut off doesn't start a VM that no longer fits") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("start");
    const auto begun = world.post("/v1/vms/web/restart", {{"force", true}});
    REQUIRE(begun.status == 202);
    world.crash();
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.host.memory_mib = 2200; };
    world.boot();
    const auto op = world.get("/v1/operations/" + begun.text("/id") + "?wait=60");
    CHECK(op.text("/state") == "failed");
    CHECK(op.text("/error/code") == "insufficient_resources");
    CHECK(world.get("/v1/vms/web").text("/status/power") == "off");
    CHECK(world.hypervisor->count("start") == 0);
}

TEST_CASE("a stop cut off by a crash is gone on with in what is left of its time") {
    const bool force = GENERATE(false, true);
    CAPTURE(force);
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->on_shutdown(id, Shutdown::ignore);
    if (force) world.hypervisor->hang("power_off");
    const auto begun = world.post("/v1/vms/web/stop", {{"force", force}, {"timeout_s", 60}});
    REQUIRE(begun.status == 202);
    world.pass(20s);
    world.crash();
    world.before_boot = [&](fakes::FakeHypervisor& hypervisor) { hypervisor.on_shutdown(id, Shutdown::ignore); };
    world.boot();
    const auto operation = "/v1/operations/" + begun.text("/id");
    if (!force) {
        world.pass(30s);
        CHECK(world.hypervisor->count("request_shutdown") > 0);
        CHECK(world.hypervisor->count("power_off") == 0);
        CHECK(world.get(operation).text("/state") == "running");
        CHECK(world.get(operation).at("/cancellable").as_bool());
    }
    CHECK(world.get(operation + "?wait=15").text("/state") == "succeeded");
    CHECK(world.hypervisor->count("power_off") == 1);
    CHECK(world.get("/v1/vms/web").text("/status/power") == "off");
    CHECK(world.get("/v1/vms/web").text("/spec/power") == "off");
}

TEST_CASE("a stop that was cancelled right before a crash leaves the VM running, and wanted so") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->on_shutdown(id, Shutdown::ignore);
    const auto begun = world.post("/v1/vms/web/stop");
    REQUIRE(begun.status == 202);
    // The cancel is on disk, the end isn't.
    world.store.fail_commit(2, {base::Errc::io_error, "no luck"});
    (void)world.send(net::Method::post, "/v1/operations/" + begun.text("/id") + "/cancel", boost::json::object{});
    world.settle();
    world.crash();
    world.boot();
    CHECK(world.get("/v1/operations/" + begun.text("/id") + "?wait=9").text("/state") == "cancelled");
    CHECK(world.get("/v1/vms/web").text("/status/power") == "running");
    CHECK(world.get("/v1/vms/web").text("/spec/power") == "on");
}

TEST_CASE("a forced stop that a crash cut off doesn't stop a VM that somebody started since") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("domain");  // its end waits for a look at the domain
    const auto begun = world.post("/v1/vms/web/stop", {{"force", true}});
    REQUIRE(begun.status == 202);
    world.hypervisor->release("domain");
    world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    world.pass(20s);
    REQUIRE(world.get("/v1/operations/" + begun.text("/id")).text("/state") == "running");
    REQUIRE(world.get("/v1/vms/web").text("/status/power") == "off");
    // Right when the database is well again, before the stop's end is tried once more.
    world.store.fail_always(std::nullopt);
    REQUIRE(world.post("/v1/vms/web/start").status == 202);
    world.settle();
    REQUIRE(world.get("/v1/vms/web").text("/status/power") == "running");
    REQUIRE(world.get("/v1/operations/" + begun.text("/id")).text("/state") == "running");
    world.crash();
    world.boot();
    world.pass(1min);
    CHECK(world.get("/v1/vms/web").text("/status/power") == "running");
    CHECK(world.get("/v1/vms/web").text("/spec/power") == "on");
    CHECK(world.hypervisor->count("power_off") == 0);
}

TEST_CASE("changes that aren't accepted at the same time leave the VM as it was") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    const auto stop = world.send(net::Method::post, "/v1/vms/web/stop", boost::json::object{{"force", true}});
    const auto restart = world.send(net::Method::post, "/v1/vms/web/restart", boost::json::object{});
    world.settle();
    CHECK((*stop)->status == 500);
    CHECK((*restart)->status == 500);
    CHECK(world.get("/v1/vms/web").text("/spec/power") == "on");
    CHECK(world.get("/v1/vms/web").at("/generation").as_int64() == 1);
}
