#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

TEST_CASE("a VM is created, read, stopped, started and deleted, and nothing of it is left") {
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();

    const auto made = world.post("/v1/vms?wait=60", vm_body("web-1", {{"disks", {{"data", {{"size_gib", 1}}}}}}));
    REQUIRE(made.status == 201);
    const auto id = made.text("/id");
    CHECK(made.headers.find("Location") == "/v1/vms/" + id);
    CHECK(made.text("/status/phase") == "ready");
    CHECK(made.text("/status/power") == "running");
    CHECK(made.at("/managed").as_bool());
    REQUIRE(world.hypervisor->find(id) != nullptr);
    const auto* spec = world.hypervisor->spec_of(id);
    REQUIRE(spec->disks.size() == 2);
    CHECK(spec->disks[0].backing_format == "qcow2");
    CHECK(world.files.exists(spec->disks[0].path));
    CHECK(world.files.exists(spec->disks[1].path));
    CHECK(world.files.exists(spec->seed_path));

    CHECK(world.get("/v1/vms/web-1").text("/id") == id);
    CHECK(world.get("/v1/vms/" + id).text("/name") == "web-1");

    const auto stopped = world.post("/v1/vms/web-1/stop?wait=60");
    CHECK(stopped.status == 200);
    CHECK(stopped.text("/status/power") == "off");
    CHECK(stopped.text("/spec/power") == "off");
    CHECK(world.post("/v1/vms/web-1/start?wait=60").text("/status/power") == "running");

    const auto gone = world.call(net::Method::del, "/v1/vms/web-1?wait=60");
    CHECK(gone.status == 200);
    CHECK(gone.text("/kind") == "vm.delete");
    CHECK(world.get("/v1/vms/web-1").status == 404);
    CHECK(world.hypervisor->find(id) == nullptr);
    CHECK(world.files.files() == files_before);
    CHECK(world.store.vms().empty());
}

TEST_CASE("a guest that ignores the shutdown is powered off at the timeout") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->on_shutdown(id, fakes::FakeHypervisor::Shutdown::ignore);

    const auto answer = world.begin(net::Method::post, "/v1/vms/web/stop?wait=100", json::object{{"timeout_s", 20}});
    world.pass(19s);
    CHECK_FALSE(answer->has_value());
    world.pass(5s);
    REQUIRE(answer->has_value());
    CHECK((*answer)->text("/status/power") == "off");
    CHECK(world.hypervisor->count("power_off") == 1);
}

TEST_CASE("a request to shut down that never comes back costs the timeout, and a stalled power-off shows") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("request_shutdown");
    world.hypervisor->hang("power_off");
    const auto begun = world.post("/v1/vms/web/stop", {{"timeout_s", 10}});
    REQUIRE(begun.status == 202);
    const auto operation = "/v1/operations/" + begun.text("/id");
    world.pass(9s);
    CHECK(world.get(operation).text("/progress/phase") == "shutdown");
    world.pass(2s);
    CHECK(world.get(operation).text("/progress/phase") == "power_off");
    CHECK(world.get(operation).at("/stalled").as_bool());
    world.hypervisor->release("power_off");
    world.pass(1s);
    CHECK(world.get(operation).text("/state") == "succeeded");
    CHECK(world.get("/v1/vms/web").text("/status/power") == "off");
    world.hypervisor->release("request_shutdown");
    world.settle();
}

TEST_CASE("each verb is refused in a state that doesn't allow it, with the state and what is allowed") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();

    const auto refused = world.post("/v1/vms/web/start");
    CHECK(refused.status == 409);
    CHECK(refused.text("/code") == "state_conflict");
    CHECK(refused.text("/state") == "running");
    CHECK(refused.at("/allowed").as_array().size() > 0);
    CHECK(world.post("/v1/vms/web/resume").status == 409);

    CHECK(world.post("/v1/vms/web/pause?wait=9").text("/status/power") == "paused");
    CHECK(world.post("/v1/vms/web/pause").status == 409);
    CHECK(world.post("/v1/vms/web/resume?wait=9").text("/status/power") == "running");
    CHECK(world.post("/v1/vms/web/reset?wait=9").status == 200);
    CHECK(world.post("/v1/vms/web/suspend?wait=9").text("/status/power") == "suspended");
    CHECK(world.post("/v1/vms/web/stop").status == 409);
    CHECK(world.post("/v1/vms/web/start?wait=9").text("/status/power") == "running");
    CHECK(world.post("/v1/vms/web/restart?wait=60").text("/status/power") == "running");
}

TEST_CASE("labels, protection and size are patched, and a running VM says that it needs a restart") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();

    auto patched = world.call(net::Method::patch, "/v1/vms/web?wait=9",
                              json::object{{"labels", {{"tier", "web"}}}, {"spec", {{"protected", true}}}});
    CHECK(patched.status == 200);
    CHECK(patched.text("/labels/tier") == "web");
    CHECK(patched.at("/generation").to_number<int>() == 2);
    CHECK(world.call(net::Method::del, "/v1/vms/web").text("/code") == "protected");

    patched = world.call(net::Method::patch, "/v1/vms/web?wait=9",
                         json::object{{"spec", {{"memory_mib", 1024}, {"disk_gib", 3}}}});
    CHECK(patched.status == 200);
    CHECK(json::serialize(patched.at("/status/conditions")).contains("RestartRequired"));
    const auto restarted = world.post("/v1/vms/web/restart?wait=60");
    CHECK(restarted.status == 200);
    CHECK_FALSE(json::serialize(restarted.at("/status/conditions")).contains("RestartRequired"));
    CHECK(world.hypervisor->find(id)->memory_mib == 1024);
    CHECK(world.processes.calls_with("resize") == 1);

    CHECK(world.call(net::Method::patch, "/v1/vms/web", json::object{{"spec", {{"disk_gib", 1}}}}).status == 422);
    CHECK(world.call(net::Method::patch, "/v1/vms/web", json::object{{"spec", {{"image", "other"}}}}).status == 422);
    CHECK(world.call(net::Method::patch, "/v1/vms/web?wait=9", json::object{{"labels", {{"tier", nullptr}}}})
              .at("/labels")
              .as_object()
              .empty());
}

TEST_CASE("an ETag changes with what is seen, not with figures, and If-Match guards a change") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    const auto first = world.get("/v1/vms/web");
    const std::string etag{first.headers.find("ETag").value_or("")};
    REQUIRE(etag.starts_with("\"g1-r"));

    world.hypervisor->set_usage(id, {.cpu_time_ns = 5, .memory_mib = 7, .disk_bytes = 9, .taken = world.clock.now()});
    world.pass(30s);
    const auto with = [](std::string name, std::string value) {
        return [=](net::Request& r) { r.headers.set(name, value); };
    };
    CHECK(world.call(net::Method::get, "/v1/vms/web", {}, with("If-None-Match", etag)).status == 304);
    CHECK(world.get("/v1/vms/web").at("/status/usage/memory_mib").to_number<int>() == 7);

    world.hypervisor->set_addresses(id, {"192.168.122.10"});
    world.pass(30s);
    CHECK(world.call(net::Method::get, "/v1/vms/web", {}, with("If-None-Match", etag)).status == 200);
    CHECK(world.get("/v1/vms/web").text("/status/addresses/0") == "192.168.122.10");
    CHECK(world.get("/v1/vms/web").text("/status/conditions/0/reason") == "dhcp_lease");
    world.hypervisor->set_addresses(id, {}, {"10.0.0.7"});
    world.pass(60s);
    CHECK(world.get("/v1/vms/web").text("/status/addresses/0") == "10.0.0.7");
    CHECK(world.get("/v1/vms/web").text("/status/conditions/0/reason") == "guest_agent");

    const json::object labels{{"labels", {{"a", "b"}}}};
    CHECK(world.call(net::Method::patch, "/v1/vms/web?wait=9", labels, with("If-Match", "\"g1-r9\"")).status == 200);
    const auto stale = world.call(net::Method::patch, "/v1/vms/web", labels, with("If-Match", "\"g1-r9\""));
    CHECK(stale.status == 412);
    CHECK(stale.text("/code") == "precondition_failed");

    const auto guarded = [&](const char* tags) {
        return world.call(net::Method::patch, "/v1/vms/web", labels, with("If-Match", tags)).status;
    };
    CHECK(guarded("\"g1-r9\", \"g3-r1\"") == 412);
    CHECK(guarded("\"g2-r9\", \"g1-r9\"") == 202);
}

TEST_CASE("a change that was waited for answers with the ETag of what it left, good for the next change") {
    World world;
    world.boot();
    world.add_image();
    auto last = world.post("/v1/vms?wait=9", vm_body("web"));
    REQUIRE(last.status == 201);
    for (const auto* verb : {"pause", "resume", "reset"}) {
        CAPTURE(verb);
        const std::string etag{last.headers.find("ETag").value_or("none")};
        CHECK(world.get("/v1/vms/web").headers.find("ETag") == etag);
        last = world.call(net::Method::post, std::string{"/v1/vms/web/"} + verb + "?wait=9", json::object{},
                          [&](net::Request& r) { r.headers.set("If-Match", etag); });
        CHECK(last.status == 200);
    }
}

TEST_CASE("a guest that powers itself off is off with on wanted, and the agent leaves it so") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->guest_powers_off(id);
    world.pass(30s);
    const auto seen = world.get("/v1/vms/web");
    CHECK(seen.text("/status/power") == "off");
    CHECK(seen.text("/spec/power") == "on");
    CHECK(json::serialize(seen.at("/status/conditions")).contains("PowerAsWanted"));
    CHECK(world.hypervisor->count("start") == 1);
}

TEST_CASE("a VM that doesn't fit is refused with what is needed and free, and the owner's share is never given away") {
    World world;
    world.boot();
    world.add_image();
    const auto resources = world.get("/v1/resources");
    CHECK(resources.at("/memory_mib/free").to_number<int>() == 16 * 1024 - 2048);

    auto refused = world.post("/v1/vms", vm_body("big", {{"memory_mib", 16 * 1024 - 2047}}));
    CHECK(refused.status == 409);
    CHECK(refused.text("/code") == "insufficient_resources");
    CHECK(refused.at("/needed/memory_mib").to_number<int>() == 16 * 1024 - 2047);
    CHECK(refused.at("/free/memory_mib").to_number<int>() == 16 * 1024 - 2048);
    CHECK(world.post("/v1/vms", vm_body("big", {{"vcpus", 9}})).status == 409);
    refused = world.post("/v1/vms", vm_body("big", {{"disk_gib", 1024}}));
    CHECK(refused.status == 507);
    CHECK(refused.text("/code") == "insufficient_storage");
    CHECK(world.get("/v1/vms").at("/items").as_array().empty());

    // Two that fit alone but not together.
    const auto half = vm_body("half-1", {{"memory_mib", 10 * 1024}});
    const auto one = world.begin(net::Method::post, "/v1/vms?wait=60", half);
    const auto two = world.post("/v1/vms", vm_body("half-2", {{"memory_mib", 10 * 1024}}));
    CHECK(two.status == 409);
    world.pass(1s);
    REQUIRE(one->has_value());
    CHECK((*one)->status == 201);
}

TEST_CASE("one operation a VM at a time, but a forced stop passes") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("pause");
    const auto paused = world.post("/v1/vms/web/pause");
    CHECK(paused.status == 202);
    const auto op = paused.text("/id");

    const auto busy = world.post("/v1/vms/web/reset");
    CHECK(busy.status == 409);
    CHECK(busy.text("/code") == "operation_in_progress");
    CHECK(busy.text("/operation") == "/v1/operations/" + op);
    CHECK(world.get("/v1/operations/" + op).at("/stalled").as_bool());
    CHECK(world.get("/v1/vms/web").text("/status/operation") == "/v1/operations/" + op);

    const auto forced = world.post("/v1/vms/web/stop?wait=30", {{"force", true}});
    CHECK(forced.status == 200);
    CHECK(forced.text("/status/power") == "off");
    world.hypervisor->release("pause");
    world.pass(1s);
    CHECK_FALSE(world.get("/v1/operations/" + op).text("/state") == "running");
}

TEST_CASE("a domain that others defined is shown and left alone") {
    World world;
    world.boot();
    virt::DomainInfo other;
    other.uuid = "11111111-2222-3333-4444-555555555555";
    other.name = "Someone's <VM>";
    other.power = virt::Power::running;
    other.vcpus = other.live_vcpus = 2;
    other.memory_mib = other.live_memory_mib = 4096;
    world.hypervisor->put(other);
    world.hypervisor->emit({virt::Event::Kind::domain, other.uuid, "defined"});
    world.pass(1s);

    const auto seen = world.get("/v1/vms/" + other.uuid);
    CHECK(seen.status == 200);
    CHECK_FALSE(seen.at("/managed").as_bool());
    CHECK(world.call(net::Method::del, "/v1/vms/" + other.uuid).status == 403);
    CHECK(world.get("/v1/resources").at("/memory_mib/allocated").to_number<int>() == 4096);
    world.hypervisor->vanish(other.uuid);
    world.hypervisor->emit({virt::Event::Kind::domain, other.uuid, "undefined"});
    world.pass(1s);
    CHECK(world.get("/v1/vms/" + other.uuid).status == 404);
}

TEST_CASE("with the hypervisor gone reads go on and changes are refused until it is back") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->drop_link("connection reset");
    world.pass(1s);
    CHECK(world.get("/v1/vms/web").status == 200);
    CHECK(world.get("/health").status == 503);
    CHECK(world.get("/health").text("/checks/libvirt/reason") == "connection reset");
    CHECK(world.get("/ready").status == 503);
    const auto refused = world.post("/v1/vms/web/stop");
    CHECK(refused.status == 503);
    CHECK(refused.text("/code") == "hypervisor_unavailable");
    world.hypervisor->restore_link();
    world.pass(10s);
    CHECK(world.get("/ready").status == 200);
    CHECK(world.post("/v1/vms/web/stop?wait=60").status == 200);
}

TEST_CASE("a VM that could never start here is refused even if it stays off") {
    World world;
    world.boot();
    world.add_image();
    const auto refused = world.post("/v1/vms", vm_body("web", {{"power", "off"}, {"memory_mib", 1U << 26U}}));
    CHECK(refused.status == 409);
    CHECK(refused.text("/code") == "insufficient_resources");
    CHECK(refused.at("/needed/memory_mib").to_number<std::uint64_t>() == 1U << 26U);
    CHECK(world.post("/v1/vms?wait=60", vm_body("web", {{"power", "off"}})).status == 201);
    const auto grown =
        world.call(net::Method::patch, "/v1/vms/web", boost::json::object{{"spec", {{"memory_mib", 1U << 26U}}}});
    CHECK(grown.status == 409);
    CHECK(grown.text("/code") == "insufficient_resources");
}

TEST_CASE("with every lane for changes overdue changes are refused, but for a forced stop") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->open_breaker(true);
    for (const auto* verb : {"start", "stop", "restart", "pause"}) {
        const auto refused = world.post(std::string{"/v1/vms/web/"} + verb);
        CHECK(refused.status == 503);
        CHECK(refused.text("/code") == "hypervisor_unavailable");
    }
    CHECK(world.post("/v1/vms", vm_body("another")).status == 503);
    CHECK(world.get("/v1/vms/web").status == 200);
    CHECK(world.get("/ready").status == 503);
    CHECK(world.get("/health").text("/checks/libvirt/status") == "down");
    CHECK(world.post("/v1/vms/web/stop?wait=9", {{"force", true}}).status == 200);
    world.hypervisor->open_breaker(false);
    CHECK(world.get("/ready").status == 200);
    CHECK(world.post("/v1/vms/web/start?wait=9").status == 200);
}
