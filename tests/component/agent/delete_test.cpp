// Deletes: a tombstone, tried again until nothing of the VM is left.
#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;

namespace {

void break_step(World& world, const std::string& step) {
    const base::Error error{base::Errc::hypervisor_error, "no luck"};
    if (step == "files")
        world.files.fail_paths("-seed", error);
    else
        world.hypervisor->fail(step, error, fakes::FakeHypervisor::always);
}

void mend_step(World& world, const std::string& step) {
    if (step == "files")
        world.files.fail_paths("", {});
    else
        world.hypervisor->heal(step);
}

// A VM "web" whose delete can't get past `step`, and what was there before it.
struct Stuck {
    World world;
    std::vector<std::string> files_before;
    std::size_t files_of_vm = 0;

    explicit Stuck(const std::string& step) {
        world.boot();
        world.add_image();
        files_before = world.files.files();
        world.create_vm();
        files_of_vm = world.files.files().size();
        break_step(world, step);
    }
    // The operation, accepted.
    Reply ask(const std::string& seconds) {
        auto begun = world.call(net::Method::del, "/v1/vms/web?wait=" + seconds);
        REQUIRE(begun.status == 202);
        return begun;
    }
};

}  // namespace

TEST_CASE("a delete takes the console's socket and its logs along, those that were put aside, too") {
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    const auto id = world.create_vm();
    const auto logs = world.config.state_dir + "/consoles/";
    CHECK(world.hypervisor->spec_of(id)->console_socket == logs + id + ".sock");
    for (const auto* end : {".sock", ".log", ".log.0", ".log.1"}) world.files.put(logs + id + end, "booting");
    world.files.put(logs + "another.log", "not this VM's");
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=9").status == 200);
    CHECK_FALSE(world.files.exists(logs + id + ".sock"));
    CHECK_FALSE(world.files.exists(logs + id + ".log"));
    CHECK_FALSE(world.files.exists(logs + id + ".log.0"));
    CHECK_FALSE(world.files.exists(logs + id + ".log.1"));
    CHECK(world.files.exists(logs + "another.log"));
}

TEST_CASE("a VM whose console's socket would have too long a name has a pseudo-terminal") {
    World world;
    const auto longest = 107 - std::string{"/consoles/.sock"}.size() - 36;
    const auto given = GENERATE(0, 1);
    world.config.state_dir = "/" + std::string(longest - 1 + static_cast<std::size_t>(given), 'd');
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    const auto* const spec = world.hypervisor->spec_of(id);
    CHECK(spec->console_socket.size() == (given == 0 ? 107 : 0));
    CHECK_FALSE(spec->console_log.empty());
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=9").status == 200);
}

TEST_CASE("a VM shows that it is being deleted, and by which operation") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("undefine");
    const auto begun = world.call(net::Method::del, "/v1/vms/web");
    REQUIRE(begun.status == 202);
    const auto vm = world.get("/v1/vms/web");
    CHECK(vm.text("/status/phase") == "deleting");
    CHECK(vm.at("/status/operation") != nullptr);
    CHECK(world.post("/v1/vms/web/start").text("/code") == "operation_in_progress");
    world.hypervisor->release("undefine");
    world.pass(std::chrono::seconds{1});
    CHECK(world.get("/v1/vms/web").status == 404);
}

TEST_CASE("a delete cut off by a crash is finished at the next start") {
    const auto call = GENERATE(as<std::string>{}, "power_off", "undefine");
    CAPTURE(call);
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    world.create_vm();
    world.hypervisor->hang(call);
    const auto begun = world.call(net::Method::del, "/v1/vms/web");
    REQUIRE(begun.status == 202);
    world.crash();

    world.boot();
    const auto op = world.get("/v1/operations/" + begun.text("/id") + "?wait=60");
    CHECK(op.text("/state") == "succeeded");
    CHECK(world.files.files() == files_before);
    CHECK(world.hypervisor->all().empty());
    CHECK(world.get("/v1/vms/web").status == 404);
}

TEST_CASE("a delete that fails is tried again until all is gone, and says meanwhile what holds it up") {
    const std::string step = GENERATE("power_off", "undefine", "files");
    CAPTURE(step);
    Stuck stuck{step};
    auto& world = stuck.world;
    const auto begun = stuck.ask("30");
    CHECK(begun.text("/state") == "running");
    CHECK(begun.text("/progress/phase") == "retry");
    CHECK(begun.text("/error/detail").find("no luck") != std::string::npos);
    CHECK(begun.at("/cancellable").as_bool());
    CHECK_FALSE(begun.at("/stalled").as_bool());
    CHECK(world.get("/v1/vms/web").text("/status/phase") == "deleting");
    world.pass(10min);
    const auto operation = "/v1/operations/" + begun.text("/id");
    CHECK(world.get(operation).text("/state") == "running");
    // At most once a minute, and at least every minute.
    const auto tries = world.hypervisor->count("power_off");
    CHECK(tries >= 10);
    CHECK(tries <= 30);
    mend_step(world, step);
    const auto done = world.get(operation + "?wait=61");
    CHECK(done.text("/state") == "succeeded");
    CHECK(done.at("/error").is_null());
    CHECK(world.get("/v1/vms/web").status == 404);
    CHECK(world.files.files() == stuck.files_before);
    CHECK(world.hypervisor->all().empty());
}

TEST_CASE("a delete that waits to try again outlives a crash and a stop of the agent") {
    const std::string step = GENERATE("undefine", "files");
    const bool crash = GENERATE(true, false);
    CAPTURE(step, crash);
    Stuck stuck{step};
    auto& world = stuck.world;
    const auto begun = stuck.ask("5");
    if (crash)
        world.crash();
    else
        world.shut_down();
    mend_step(world, step);
    world.boot();
    const auto done = world.get("/v1/operations/" + begun.text("/id") + "?wait=61");
    CHECK(done.text("/state") == "succeeded");
    CHECK(done.at("/error").is_null());
    CHECK(world.files.files() == stuck.files_before);
    CHECK(world.hypervisor->all().empty());
}

TEST_CASE("a delete that waits to try again can be cancelled, and leaves the VM as sound as it is") {
    const std::string step = GENERATE("power_off", "undefine", "files");
    CAPTURE(step);
    Stuck stuck{step};
    auto& world = stuck.world;
    const auto begun = stuck.ask("5");
    const auto ended = world.post("/v1/operations/" + begun.text("/id") + "/cancel?wait=9");
    CHECK(ended.status == 200);
    CHECK(ended.text("/state") == "cancelled");
    CHECK(ended.text("/error/detail").find("no luck") != std::string::npos);
    const std::string phase = step == "files" ? "error" : "ready";
    CHECK(world.get("/v1/vms/web").text("/status/phase") == phase);
    if (step != "files") CHECK(world.files.files().size() == stuck.files_of_vm);
    mend_step(world, step);
    world.pass(2min);
    CHECK(world.get("/v1/vms/web").text("/status/phase") == phase);
    world.crash();
    world.boot();
    CHECK(world.get("/v1/vms/web").text("/status/phase") == phase);
    if (step == "undefine") CHECK(world.post("/v1/vms/web/start?wait=60").status == 200);
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    CHECK(world.get("/v1/vms/web").status == 404);
}

TEST_CASE("a delete can't be cancelled while it deletes") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("undefine");
    const auto begun = world.call(net::Method::del, "/v1/vms/web");
    CHECK_FALSE(world.get("/v1/operations/" + begun.text("/id")).at("/cancellable").as_bool());
    CHECK(world.post("/v1/operations/" + begun.text("/id") + "/cancel").status == 409);
    world.hypervisor->release("undefine");
    CHECK(world.get("/v1/operations/" + begun.text("/id") + "?wait=9").text("/state") == "succeeded");
}
