#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
namespace json = boost::json;

namespace {

constexpr auto their_id = "7d3c0f0e-1111-4222-8333-444455556666";

// A domain that somebody made with virsh: a qcow2 and a raw disk, two NICs, one of them on a bridge.
virt::DomainInfo their_domain(World& world, const std::string& name = "legacy",
                              virt::Power power = virt::Power::running) {
    world.files.put("/srv/legacy.qcow2", fakes::qcow2_bytes(3ULL << 30));
    world.files.put("/srv/data.img", std::string(1 << 20, 'x'));
    virt::DomainInfo domain;
    domain.uuid = their_id;
    domain.name = name;
    domain.power = power;
    domain.vcpus = 2;
    domain.memory_mib = 1024;
    domain.disks = {{"vda", "", "/srv/legacy.qcow2", "qcow2", false},
                    {"vdb", "", "/srv/data.img", "raw", false},
                    {"sda", "", "/srv/install.iso", "raw", true}};
    domain.nics = {{"52:54:00:00:00:01", "default", "virtio"}, {"52:54:00:00:00:02", "", "virtio"}};
    return domain;
}

Reply adopt(World& world, const std::string& ref, json::object body = {}) {
    return world.post("/v1/vms/" + ref + "/adopt?wait=60", std::move(body));
}

}  // namespace

TEST_CASE("a running domain of others is taken over as it is") {
    World world;
    world.boot();
    world.hypervisor->put(their_domain(world));
    world.settle();
    REQUIRE_FALSE(world.get("/v1/vms/legacy").at("/managed").as_bool());
    CHECK(world.post("/v1/vms/legacy/stop").status == 403);

    const auto adopted = adopt(world, "legacy");
    INFO(json::serialize(adopted.body));
    REQUIRE(adopted.status == 200);
    CHECK(adopted.text("/id") == their_id);
    CHECK(adopted.at("/managed").as_bool());
    CHECK(adopted.text("/status/power") == "running");
    CHECK(adopted.text("/spec/power") == "on");
    CHECK(adopted.at("/spec/disk_gib").to_number<int>() == 3);
    CHECK(adopted.at("/spec/disks/vdb/size_gib").to_number<int>() == 1);
    CHECK(adopted.text("/spec/nics/eth0/network") == "default");
    CHECK(world.hypervisor->count("define") == 0);
    CHECK(world.hypervisor->find(their_id)->record.has_value());
    CHECK(world.store.vms().contains(their_id));
    CHECK(adopt(world, "legacy").text("/code") == "state_conflict");
    CHECK(world.post("/v1/vms/legacy/stop?wait=60").status == 200);
    CHECK(world.post("/v1/vms/legacy/start?wait=60").status == 200);

    // It is ours in every respect from now on, also when the database is lost.
    world.shut_down();
    world.store = fakes::MemoryStore{};
    world.boot();
    CHECK(world.get("/v1/vms/legacy").at("/managed").as_bool());
}

TEST_CASE("a domain that is off gets another name, and one that runs keeps its own") {
    World world;
    world.boot();
    world.hypervisor->put(their_domain(world, "Legacy Box", virt::Power::off));
    world.settle();
    const auto unnamed = adopt(world, their_id);
    CHECK(unnamed.status == 422);
    CHECK(unnamed.text("/errors/0/pointer") == "/name");
    CHECK(adopt(world, their_id, {{"name", "No Name"}}).status == 422);
    CHECK(adopt(world, their_id, {{"nom", "x"}}).status == 422);
    const auto named = adopt(world, their_id, {{"name", "box"}});
    REQUIRE(named.status == 200);
    CHECK(named.text("/name") == "box");
    CHECK(world.hypervisor->find(their_id)->name == "box");

    auto running = their_domain(world, "Other", virt::Power::running);
    running.uuid = "8d3c0f0e-1111-4222-8333-444455556666";
    world.hypervisor->put(running);
    world.settle();
    CHECK(adopt(world, running.uuid, {{"name", "other"}}).text("/code") == "state_conflict");
    CHECK(adopt(world, running.uuid, {{"name", "box"}}).text("/code") == "already_exists");
    CHECK(adopt(world, "none").status == 404);
}

TEST_CASE("a transient domain isn't taken over") {
    World world;
    world.boot();
    auto domain = their_domain(world);
    domain.persistent = false;
    world.hypervisor->put(domain);
    world.settle();
    CHECK(adopt(world, "legacy").text("/code") == "state_conflict");
    CHECK_FALSE(world.hypervisor->find(their_id)->record);
}

TEST_CASE("a domain with a disk that is gone is taken over all the same, and readers see that it is free again") {
    World world;
    world.boot();
    auto domain = their_domain(world);
    domain.disks.front().path = "/srv/gone.qcow2";
    world.hypervisor->put(domain);
    world.settle();
    const auto watcher = world.watch();
    world.hypervisor->fail("set_record", {base::Errc::hypervisor_error, "no luck"});
    CHECK(adopt(world, "legacy").status == 502);
    world.settle();
    const auto last = [&watcher] {
        const auto it = std::ranges::find(watcher->events.rbegin(), watcher->events.rend(),
                                          std::string{"/v1/vms/"} + their_id, &Watcher::Event::subject);
        REQUIRE(it != watcher->events.rend());
        return it->data;
    };
    CHECK(last().at("status").at("operation").is_null());
    CHECK_FALSE(last().at("managed").as_bool());
    CHECK(adopt(world, "legacy").status == 200);
    CHECK(last().at("managed").as_bool());
}

TEST_CASE("an adoption whose record was written, and not said so, has succeeded") {
    const auto code = GENERATE(base::Errc::hypervisor_error, base::Errc::hypervisor_unavailable);
    const bool away = GENERATE(false, true);
    World world;
    world.boot();
    world.hypervisor->put(their_domain(world));
    world.settle();
    world.hypervisor->fail("set_record", {code, "no luck"}, 1, fakes::FakeHypervisor::When::after_effect);
    world.hypervisor->hang("set_record");
    const auto begun = world.post("/v1/vms/legacy/adopt");
    REQUIRE(begun.status == 202);
    // The domain can't be looked at at once.
    if (away) world.hypervisor->fail("domain", {base::Errc::hypervisor_unavailable, "gone"}, 20);
    world.hypervisor->release("set_record");
    world.settle();
    const auto operation = "/v1/operations/" + begun.text("/id");
    if (away) CHECK(world.get(operation).at("/stalled").as_bool());
    CHECK(world.get(operation + "?wait=300").text("/state") == "succeeded");
    CHECK(world.get("/v1/vms/legacy").at("/managed").as_bool());
    CHECK(world.store.vms().contains(their_id));
}

TEST_CASE("an adoption that a crash cut off is gone on with") {
    const auto call = GENERATE(as<std::string>{}, "rename", "set_record");
    World world;
    world.boot();
    world.hypervisor->put(their_domain(world));
    world.settle();
    world.hypervisor->hang(call);
    const auto begun = world.post("/v1/vms/legacy/adopt");
    REQUIRE(begun.status == 202);
    world.crash();
    world.boot();
    CHECK(world.get("/v1/operations/" + begun.text("/id") + "?wait=60").text("/state") == "succeeded");
    CHECK(world.get("/v1/vms/legacy").at("/managed").as_bool());
}

TEST_CASE("a domain whose adoption was cut off is ours by the adoption's end alone") {
    const bool vanishes = GENERATE(false, true);
    World world;
    world.boot();
    world.hypervisor->put(their_domain(world));
    world.settle();
    world.hypervisor->fail("set_record", {base::Errc::hypervisor_unavailable, "gone"}, 1,
                           fakes::FakeHypervisor::When::after_effect);
    world.hypervisor->hang("set_record");
    const auto begun = world.post("/v1/vms/legacy/adopt");
    REQUIRE(begun.status == 202);
    world.hypervisor->hang("domain");
    world.hypervisor->release("set_record");
    world.settle();
    world.crash();
    REQUIRE(world.hypervisor->find(their_id)->record);
    // Its disk can't be read any more: what its record says counts.
    world.files.fail_paths("/srv", {base::Errc::io_error, "no luck"});
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("domain"); };
    world.boot();
    CHECK_FALSE(world.get("/v1/vms/legacy").at("/managed").as_bool());
    if (vanishes) world.hypervisor->vanish(their_id);
    world.hypervisor->release("domain");
    const auto ended = world.get("/v1/operations/" + begun.text("/id") + "?wait=200");
    CHECK(ended.text("/state") == (vanishes ? "failed" : "succeeded"));
    if (vanishes)
        CHECK(world.get("/v1/vms/" + std::string{their_id}).status == 404);
    else
        CHECK(world.get("/v1/vms/legacy").at("/managed").as_bool());
}

TEST_CASE("the name that an adoption gives is nobody else's from its acceptance on") {
    const bool crash = GENERATE(false, true);
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->put(their_domain(world, "Legacy Box", virt::Power::off));
    world.settle();
    world.hypervisor->hang("rename");
    REQUIRE(world.post(std::string{"/v1/vms/"} + their_id + "/adopt", {{"name", "box"}}).status == 202);
    if (crash) {
        world.crash();
        world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("rename"); };
        world.boot();
    }
    CHECK(world.post("/v1/vms", vm_body("box")).text("/code") == "already_exists");
    world.hypervisor->release("rename");
    world.pass(std::chrono::seconds{1});
    CHECK(world.get("/v1/vms/box").text("/id") == their_id);
    // One that came to nothing gives its name free.
    auto other = their_domain(world, "Other", virt::Power::off);
    other.uuid = "8d3c0f0e-1111-4222-8333-444455556666";
    world.hypervisor->put(other);
    world.settle();
    world.hypervisor->fail("rename", {base::Errc::hypervisor_error, "no luck"});
    CHECK(adopt(world, other.uuid, {{"name", "free"}}).status == 502);
    CHECK(world.post("/v1/vms?wait=60", vm_body("free")).status == 201);
}

TEST_CASE("a record that is written after its adoption failed makes nobody ours") {
    World world;
    world.boot();
    world.hypervisor->put(their_domain(world));
    world.settle();
    world.hypervisor->hang("set_record");
    const auto begun = world.post("/v1/vms/legacy/adopt");
    REQUIRE(begun.status == 202);
    world.hypervisor->drop_link("gone");  // and libvirtd carries on with the call
    world.settle();
    world.hypervisor->restore_link();
    REQUIRE(world.get("/v1/operations/" + begun.text("/id") + "?wait=60").text("/state") == "failed");
    world.hypervisor->release("set_record");
    world.settle();
    REQUIRE(world.hypervisor->find(their_id)->record);
    world.crash();
    world.boot();
    CHECK_FALSE(world.get("/v1/vms/legacy").at("/managed").as_bool());
    CHECK(adopt(world, "legacy").status == 200);
    world.crash();
    world.boot();
    CHECK(world.get("/v1/vms/legacy").at("/managed").as_bool());
}

TEST_CASE("the delete of an adopted VM takes its own files and nobody else's") {
    World world;
    world.boot();
    world.hypervisor->put(their_domain(world));
    auto sharer = their_domain(world, "sharer");
    sharer.uuid = "8d3c0f0e-1111-4222-8333-444455556666";
    sharer.disks = {{"vda", "", "/srv/data.img", "raw", false}};
    world.hypervisor->put(sharer);
    world.files.put("/srv/install.iso", "iso");
    world.settle();
    REQUIRE(adopt(world, "legacy").status == 200);
    CHECK(world.call(net::Method::del, "/v1/vms/legacy?wait=60").status == 200);
    CHECK_FALSE(world.files.exists("/srv/legacy.qcow2"));
    CHECK(world.files.exists("/srv/data.img"));
    CHECK(world.files.exists("/srv/install.iso"));
    CHECK(world.hypervisor->find(their_id) == nullptr);
}
