#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;
using How = virt::GuestRun::How;

namespace {

constexpr auto failed_module =
    R"j({"status": "error", "errors": ["('scripts_user', RuntimeError('Runparts: 1 failures'))"]})j";

// Which is a host key, too: a guest that has none is asked for them again.
constexpr auto host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n";

virt::GuestRun says(const std::string& output, int code = 0) {
    return {.how = How::exited, .exit_code = code, .output = host_key + output};
}
virt::GuestRun runs() { return says(R"({"status": "running", "detail": "Running in stage: init"})"); }
virt::GuestRun done() { return says(R"({"status": "done"})"); }

struct Seen {
    std::string status, reason, message;
};

// GuestReady as the API shows it; empty when it isn't there.
Seen readiness(World& world, const std::string& vm = "web") {
    const auto reply = world.get("/v1/vms/" + vm);
    for (const auto& each : reply.at("/status/conditions").as_array()) {
        const auto& condition = each.as_object();
        if (condition.at("type").as_string() != "GuestReady") continue;
        const auto* message = condition.if_contains("message");
        return {std::string{condition.at("status").as_string()}, std::string{condition.at("reason").as_string()},
                message == nullptr ? std::string{} : std::string{message->as_string()}};
    }
    return {};
}

struct Scene : World {
    Scene() {
        boot();
        add_image();
    }
    std::string begin_create() {
        auto body = vm_body("web");
        body["wait_for"] = "guest_ready";
        const auto begun = post("/v1/vms", body);
        REQUIRE(begun.status == 202);
        operation = "/v1/operations/" + begun.text("/id");
        pass(5s);
        return begun.text("/target/id");
    }
    std::string operation;
};

}  // namespace

TEST_CASE("a guest's readiness shows as it changes, while the VM runs") {
    Scene world;
    const auto id = world.create_vm();
    CHECK(readiness(world).status == "unknown");
    CHECK(readiness(world).reason == "no_guest_agent");
    world.hypervisor->set_guest_run(id, runs());
    world.pass(16s);
    CHECK(readiness(world).status == "false");
    CHECK(readiness(world).reason == "cloud_init_running");
    CHECK(readiness(world).message == "Running in stage: init");
    world.hypervisor->set_guest_run(id, says(failed_module, 1));
    world.pass(16s);
    CHECK(readiness(world).status == "false");
    CHECK(readiness(world).reason == "cloud_init_error");
    CHECK(readiness(world).message == "the module scripts_user failed: Runparts: 1 failures");
    CHECK(world.post("/v1/vms/web/stop?wait=9", json::object{{"force", true}}).status == 200);
    CHECK(readiness(world).status.empty());
}

TEST_CASE("a guest that has said its last word is asked again only when it boots anew") {
    Scene world;
    const auto id = world.create_vm();
    world.hypervisor->set_guest_run(id, done());
    world.pass(20s);
    CHECK(readiness(world).status == "true");
    CHECK(readiness(world).reason == "cloud_init_done");
    auto asked = world.hypervisor->count("run_in_guest");
    world.pass(30min);
    CHECK(world.hypervisor->count("run_in_guest") == asked);

    world.hypervisor->set_guest_run(id, runs());
    CHECK(world.post("/v1/vms/web/reset?wait=9").status == 200);
    CHECK(readiness(world).reason == "no_guest_agent");
    world.pass(5s);
    CHECK(readiness(world).reason == "cloud_init_running");

    world.hypervisor->set_guest_run(id, done());
    CHECK(world.post("/v1/vms/web/restart?wait=60").status == 200);
    world.pass(5s);
    CHECK(readiness(world).status == "true");

    // The first error may not be the last; the same one twice is.
    world.hypervisor->set_guest_run(id, says(failed_module, 1));
    CHECK(world.post("/v1/vms/web/reset?wait=9").status == 200);
    world.pass(1min);
    asked = world.hypervisor->count("run_in_guest");
    world.pass(30min);
    CHECK(world.hypervisor->count("run_in_guest") == asked);
    CHECK(readiness(world).reason == "cloud_init_error");
}

TEST_CASE("an answer of the guest as it was before it was reset says nothing") {
    Scene world;
    const auto id = world.create_vm();
    world.hypervisor->set_guest_run(id, done());
    world.hypervisor->answer_late("run_in_guest", 30s);
    world.pass(16s);
    world.hypervisor->set_guest_run(id, runs());
    CHECK(world.post("/v1/vms/web/reset?wait=9").status == 200);
    world.pass(25s);
    CHECK(readiness(world).reason == "no_guest_agent");
    world.pass(30s);
    CHECK(readiness(world).reason == "cloud_init_running");
}

TEST_CASE("a guest paused or unheard of for a while is as ready as it was") {
    Scene world;
    const auto id = world.create_vm();
    world.hypervisor->set_guest_run(id, done());
    world.pass(20s);
    CHECK(world.post("/v1/vms/web/pause?wait=9").status == 200);
    world.hypervisor->drop_link("libvirtd is gone");
    world.pass(60s);
    CHECK(readiness(world).status == "true");
    world.hypervisor->restore_link();
    world.pass(10s);
    CHECK(readiness(world).status == "true");
}

TEST_CASE("guests whose agents hang hold up nobody, and are asked ever more rarely, one question at a time") {
    Scene world;
    std::vector<std::string> ids;
    ids.reserve(6);
    for (int n = 0; n < 6; ++n) ids.push_back(world.create_vm("vm-" + std::to_string(n)));
    world.hypervisor->read_deadline = 120s;
    for (std::size_t n = 0; n < 5; ++n) world.hypervisor->hang("run_in_guest " + ids[n]);
    world.hypervisor->set_guest_run(ids.back(), done());
    world.pass(20s);
    CHECK(readiness(world, "vm-5").status == "true");
    world.hypervisor->set_usage(ids.front(), {.memory_mib = 77, .taken = {}});
    world.pass(13s);
    CHECK(world.get("/v1/vms/vm-0").at("/status/usage/memory_mib").to_number<int>() == 77);
    auto asked = world.hypervisor->count("run_in_guest");
    world.pass(60s);
    CHECK(world.hypervisor->count("run_in_guest") == asked);
    world.pass(4h);
    asked = world.hypervisor->count("run_in_guest");
    world.pass(1h);
    CHECK(world.hypervisor->count("run_in_guest") - asked <= 10);
    CHECK(readiness(world, "vm-0").reason == "no_guest_agent");
}

TEST_CASE("nothing is run in the guests of others") {
    World world;
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) {
        virt::DomainInfo theirs;
        theirs.uuid = "11111111-1111-4111-8111-111111111111";
        theirs.name = "theirs";
        theirs.power = virt::Power::running;
        theirs.vcpus = theirs.live_vcpus = 1;
        theirs.memory_mib = 64;
        hypervisor.put(std::move(theirs));
    };
    world.boot();
    world.pass(60s);
    CHECK(world.get("/v1/vms/theirs").text("/status/power") == "running");
    CHECK(readiness(world, "theirs").status.empty());
    CHECK(world.hypervisor->count("run_in_guest") == 0);
}

TEST_CASE("a create that waits for its guest ends when that is ready, and asks often") {
    Scene world;
    const auto id = world.begin_create();
    CHECK(world.get(world.operation).text("/progress/phase") == "guest_ready");
    world.hypervisor->set_guest_run(id, runs());
    world.pass(1min);
    CHECK(world.get(world.operation).text("/state") == "running");
    world.hypervisor->set_guest_run(id, done());
    world.pass(4s);
    CHECK(world.get(world.operation).text("/state") == "succeeded");
    CHECK(readiness(world).reason == "cloud_init_done");
}

TEST_CASE("a create whose guest fails says which module did, and is undone") {
    Scene world;
    world.hypervisor->set_guest_run(world.begin_create(), says(failed_module, 1));
    world.pass(5s);
    const auto ended = world.get(world.operation + "?wait=30");
    CHECK(ended.text("/state") == "failed");
    CHECK(ended.text("/error/detail").contains("the module scripts_user failed: Runparts: 1 failures"));
    CHECK(world.get("/v1/vms/web").status == 404);
    CHECK(world.hypervisor->all().empty());
}

TEST_CASE("a create whose guest never gets ready says why") {
    const auto [run, words] = GENERATE(table<virt::GuestRun, const char*>({
        {virt::GuestRun{}, "qemu-guest-agent"},
        {virt::GuestRun{How::not_allowed, 0, ""}, "guest-exec"},
        {virt::GuestRun{How::failed, 0, "out of memory"}, "out of memory"},
        {runs(), "cloud-init still ran"},
    }));
    Scene world;
    world.hypervisor->set_guest_run(world.begin_create(), run);
    world.pass(19min);
    CHECK(world.get(world.operation).text("/state") == "running");
    world.pass(2min);
    const auto ended = world.get(world.operation);
    CHECK(ended.text("/state") == "failed");
    CHECK(ended.text("/error/code") == "deadline_exceeded");
    CHECK(ended.text("/error/detail").contains(words));
}

TEST_CASE("a create whose guest goes off before it is ready fails") {
    Scene world;
    world.hypervisor->guest_powers_off(world.begin_create());
    world.pass(5s);
    CHECK(world.get(world.operation + "?wait=30").text("/state") == "failed");
}

TEST_CASE("a create that waits for its guest lets others pass, and is cancelled") {
    Scene world;
    world.begin_create();
    // More than run at a time.
    for (int i = 0; i < 10; ++i) {
        auto body = vm_body("other-" + std::to_string(i), {{"memory_mib", 128}});
        body["wait_for"] = "guest_ready";
        CHECK(world.post("/v1/vms", body).status == 202);
    }
    world.pass(5s);
    CHECK(world.post("/v1/vms?wait=9", vm_body("last", {{"memory_mib", 128}})).status == 201);
    CHECK(world.post(world.operation + "/cancel?wait=30").text("/state") == "cancelled");
    CHECK(world.get("/v1/vms/web").status == 404);
}

TEST_CASE("a create goes on waiting for its guest after a crash") {
    Scene world;
    const auto id = world.begin_create();
    world.crash();
    world.boot();
    world.pass(1min);
    CHECK(world.get(world.operation).text("/state") == "running");
    CHECK(world.get(world.operation).text("/progress/phase") == "guest_ready");
    world.hypervisor->set_guest_run(id, done());
    world.pass(5s);
    CHECK(world.get(world.operation).text("/state") == "succeeded");
}
