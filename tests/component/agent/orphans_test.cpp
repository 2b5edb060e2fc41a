#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

const std::string lost_id = "0198aaaa-1111-7222-8333-444455556666";
const std::string disks = "/var/lib/ghost/disks/";
const std::string lost_blob = "/var/lib/ghost/images/" + std::string(64, 'a') + ".qcow2";

std::vector<std::string> listed(World& world) {
    const auto reply = world.get("/v1/orphans");
    INFO(json::serialize(reply.body));
    REQUIRE(reply.status == 200);
    std::vector<std::string> out;
    for (const auto& item : reply.at("/items").as_array()) out.emplace_back(item.at("path").as_string());
    std::ranges::sort(out);
    return out;
}

}  // namespace

TEST_CASE("files of ours that nobody owns are listed, and purged when asked") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    CHECK(listed(world).empty());
    const auto before = world.files.files();

    const std::vector<std::string> orphans{"/var/lib/ghost/consoles/" + lost_id + ".log",
                                           disks + "." + lost_id + "-seed.iso.new", disks + lost_id + "-root.qcow2",
                                           lost_blob};
    for (const auto& path : orphans) world.files.put(path, "x");
    // Not of our making.
    world.files.put(disks + "theirs.qcow2", "x");
    world.files.put(disks + lost_id, "x");
    world.files.put("/var/lib/ghost/images/notes.txt", "x");
    // No regular file, as a console's socket is none.
    world.files.put_directory("/var/lib/ghost/consoles/" + lost_id + ".sock");
    auto sorted = orphans;
    std::ranges::sort(sorted);
    CHECK(listed(world) == sorted);
    const auto since = world.get("/v1/orphans").text("/items/0/found_at");
    world.pass(1h);
    CHECK(world.get("/v1/orphans").text("/items/0/found_at") == since);

    const auto dry = world.post("/v1/orphans/purge?dry_run=true");
    CHECK(dry.status == 200);
    CHECK(dry.at("/would").as_array().size() == orphans.size());
    CHECK(listed(world) == sorted);
    CHECK(world.post("/v1/orphans/purge?wait=60").status == 200);
    CHECK(listed(world).empty());
    for (const auto& path : orphans) CHECK_FALSE(world.files.exists(path));
    CHECK(world.files.exists(disks + "theirs.qcow2"));
    CHECK(world.files.files().size() == before.size() + 3);
    CHECK(world.get("/v1/vms/web").text("/status/power") == "running");
}

TEST_CASE("what a domain of others has open or stands on is no orphan") {
    World world;
    world.boot();
    world.files.put(disks + lost_id + "-root.qcow2", fakes::qcow2_bytes(1 << 20, lost_blob, "qcow2"));
    world.files.put(lost_blob, fakes::qcow2_bytes(1 << 20));
    CHECK(listed(world).size() == 2);
    virt::DomainInfo domain;
    domain.uuid = "7d3c0f0e-1111-4222-8333-444455556666";
    domain.name = "theirs";
    domain.power = virt::Power::off;
    domain.disks = {{"vda", "", disks + lost_id + "-root.qcow2", "qcow2", false}};
    world.hypervisor->put(domain);
    world.settle();
    CHECK(listed(world).empty());
}

TEST_CASE("a leftover domain that couldn't be taken away is listed, and a purge tries again") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    const auto domain = *world.hypervisor->find(id);
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    world.hypervisor->fail("undefine", {base::Errc::hypervisor_error, "no luck"}, fakes::FakeHypervisor::always);
    world.hypervisor->put(domain);
    world.settle();
    world.hypervisor->heal("undefine");
    const auto orphans = world.get("/v1/orphans");
    REQUIRE(orphans.at("/items").as_array().size() == 1);
    CHECK(orphans.text("/items/0/kind") == "domain");
    CHECK(orphans.text("/items/0/id") == id);
    world.hypervisor->heal("undefine");
    CHECK(world.post("/v1/orphans/purge?wait=60").status == 200);
    CHECK(world.hypervisor->all().empty());
    CHECK(world.get("/v1/orphans").at("/items").as_array().empty());
}

TEST_CASE("without the hypervisor nothing is called an orphan") {
    World world;
    world.boot();
    world.files.put(disks + lost_id + "-root.qcow2", "x");
    world.hypervisor->drop_link("libvirtd is gone");
    world.settle();
    CHECK(world.get("/v1/orphans").status == 503);
    CHECK(world.post("/v1/orphans/purge").status == 503);
    CHECK(world.files.exists(disks + lost_id + "-root.qcow2"));
}
