#include "component/agent/interrupted.hpp"
#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

TEST_CASE("VMs run on through a stop of the agent and are found again, labels, protection and all") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    CHECK(world
              .call(net::Method::patch, "/v1/vms/web?wait=9",
                    json::object{{"labels", {{"tier", "web"}}}, {"spec", {{"protected", true}}}})
              .status == 200);
    const std::string etag{world.get("/v1/vms/web").headers.find("ETag").value_or("")};
    world.shut_down();
    CHECK(world.hypervisor->find(id)->power == virt::Power::running);
    CHECK(world.store.closed());

    world.boot();
    const auto again = world.get("/v1/vms/web");
    CHECK(again.status == 200);
    CHECK(again.text("/status/power") == "running");
    CHECK(again.text("/labels/tier") == "web");
    CHECK(again.at("/spec/protected").as_bool());
    CHECK(world.hypervisor->count("start") == 0);
    CHECK(again.headers.find("ETag") != etag);
    CHECK(world.get("/v1/images/tiny").status == 200);
    CHECK(world.get("/v1/operations").at("/items").as_array().size() == 3);
}

TEST_CASE("a VM whose domain went while no agent was there is marked, and not before the domains are read") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.shut_down();
    world.hypervisor->vanish(id);
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("domains"); };
    world.boot();
    CHECK(world.get("/v1/vms/web").at("/status/conditions").as_array().empty());
    world.hypervisor->release("domains");
    world.pass(20s);
    CHECK(world.get("/v1/vms/web").text("/status/conditions/0/type") == "DomainMissing");
}

TEST_CASE("of two operations that a crash cut off only the one that had the VM gives it free") {
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->hang("define");
    world.hypervisor->hang("power_off");
    const auto create = world.post("/v1/vms", vm_body("web"));
    REQUIRE(create.status == 202);
    REQUIRE(world.post("/v1/vms/web/stop", {{"force", true}}).status == 202);
    world.crash();
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("define"); };
    world.boot();
    const auto vm = world.get("/v1/vms/web");
    REQUIRE(vm.status == 200);
    CHECK(vm.text("/status/operation") == "/v1/operations/" + create.text("/id"));
    CHECK(world.post("/v1/vms/web/start").text("/code") == "operation_in_progress");
    world.hypervisor->release("define");
    world.settle();
    const auto after = world.get("/v1/vms/web");
    CHECK(after.text("/status/phase") == "ready");
    CHECK(after.text("/status/power") == "off");
}

TEST_CASE("another operation cut off by a crash ends as interrupted, with the VM as it is observed") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("pause");
    const auto begun = world.post("/v1/vms/web/pause");
    world.crash();
    world.boot();
    check_interrupted(world, begun);
    CHECK(world.get("/v1/vms/web").text("/status/power") == "running");
    CHECK(world.post("/v1/vms/web/stop?wait=60").status == 200);
}

TEST_CASE("a change of the spec cut off by a crash is applied at the next start, but for its power") {
    const auto call = GENERATE(as<std::string>{}, "set_record", "set_autostart", "resize", "start");
    CAPTURE(call);
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    CHECK(world.post("/v1/vms/web/stop?wait=60").status == 200);
    world.hypervisor->hang(call);
    const auto begun = world.call(
        net::Method::patch, "/v1/vms/web",
        json::object{{"spec", {{"vcpus", 2}, {"memory_mib", 1024}, {"autostart", "always"}, {"power", "on"}}}});
    REQUIRE(begun.status == 202);
    world.crash();
    world.boot();
    check_interrupted(world, begun);
    const auto vm = world.get("/v1/vms/web");
    CHECK(vm.at("/spec/vcpus").as_int64() == 2);
    CHECK(vm.text("/spec/autostart") == "always");
    CHECK(vm.text("/spec/power") == "off");
    CHECK(world.hypervisor->find(id)->vcpus == 2);
    CHECK(world.hypervisor->find(id)->memory_mib == 1024);
    CHECK(world.hypervisor->find(id)->autostart);
    CHECK(world.hypervisor->find(id)->live_vcpus == 0);
}

TEST_CASE("a stop of the agent in the middle of a create takes no longer than its grace, and the next start goes on") {
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->hang("start");
    REQUIRE(world.post("/v1/vms", vm_body("web")).status == 202);
    world.shut_down();
    world.boot();
    world.pass(10s);
    CHECK(world.get("/v1/vms/web").text("/status/power") == "running");
}

TEST_CASE("whoever waits for an operation gets it as it stands when the agent stops") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("pause");
    const auto waiting = world.begin(net::Method::post, "/v1/vms/web/pause?wait=300", json::object{});
    CHECK_FALSE(waiting->has_value());
    world.shut_down();
    REQUIRE(waiting->has_value());
    CHECK((*waiting)->status == 202);
}

TEST_CASE("the socket's directory is made where nobody made it before") {
    World world;
    world.config.api.socket = "/run/ghost/agent.sock";
    world.boot();
    REQUIRE(world.files.exists("/run/ghost"));
    CHECK(world.files.find("/run/ghost")->directory);
}

TEST_CASE("a lost database doesn't lose a VM: its domain tells whose it is") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.shut_down();
    world.store = fakes::MemoryStore{};
    world.boot();
    const auto found = world.get("/v1/vms/web");
    CHECK(found.text("/id") == id);
    CHECK(found.at("/managed").as_bool());
    CHECK(found.text("/spec/image") == "tiny");
    CHECK(world.store.vms().contains(id));
    const auto files = world.files.files().size();
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    CHECK(world.files.files().size() < files);
}

TEST_CASE("a lost database doesn't lose the VMs in a pool of somebody else's, and creates wait until it is there") {
    World world;
    world.config.libvirt.storage_pool = "vms";
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) {
        hypervisor.put_pool({"vms", "/srv/vms"});
        hypervisor.hang("ensure_pool");
    };
    world.files.put_directory("/srv/vms");
    world.boot();
    world.pass(20s);
    world.add_image();
    const auto early = world.post("/v1/vms?wait=60", vm_body("web"));
    CHECK(early.status == 503);
    CHECK(early.text("/code") == "hypervisor_unavailable");
    CHECK(world.get("/health").text("/checks/storage/status") == "degraded");
    world.hypervisor->release("ensure_pool");
    world.settle();
    const auto id = world.create_vm();
    CHECK(world.files.exists("/srv/vms/" + id + "-root.qcow2"));

    world.shut_down();
    world.store = fakes::MemoryStore{};
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.put_pool({"vms", "/srv/vms"}); };
    world.boot();
    CHECK(world.get("/v1/vms/web").at("/managed").as_bool());
}

TEST_CASE("a domain that libvirt defined for an agent that was dead by then is taken away") {
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    // The undo of a create finds nothing to undefine, since libvirt is still busy with the define.
    world.hypervisor->hang("start");
    const auto begun = world.post("/v1/vms", vm_body("web"));
    REQUIRE(begun.status == 202);
    const auto late = world.hypervisor->all().begin()->second;
    CHECK(world.post("/v1/operations/" + begun.text("/id") + "/cancel?wait=60").status == 200);
    world.hypervisor->release("start");
    CHECK(world.get("/v1/vms/web").status == 404);
    CHECK(world.hypervisor->all().empty());
    const auto id = world.create_vm();

    world.hypervisor->put(late);
    world.hypervisor->emit({virt::Event::Kind::domain, late.uuid, "defined"});
    world.settle();
    CHECK(world.hypervisor->all().size() == 1);
    CHECK(world.get("/v1/vms").at("/items").as_array().size() == 1);
    CHECK(world.get("/v1/vms/web").text("/id") == id);
    CHECK(world.get("/v1/vms/" + late.uuid).status == 404);
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    CHECK(world.files.files() == files_before);
}

TEST_CASE("a VM of another agent on the same hypervisor is left alone") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.shut_down();
    world.store = fakes::MemoryStore{};
    world.config.state_dir = "/srv/other";
    world.installation = "another";
    world.boot();
    CHECK_FALSE(world.get("/v1/vms/" + id).at("/managed").as_bool());
    CHECK(world.call(net::Method::del, "/v1/vms/" + id).status == 403);
    CHECK(world.store.vms().empty());
}
