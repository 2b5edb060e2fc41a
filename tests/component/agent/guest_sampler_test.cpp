#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

// A hundred MiB more at each reading: whether a VM's figures are fresh shows.
class Meter {
public:
    Meter(World& world, std::string id) : world_(world), id_(std::move(id)) {}
    bool moves() {
        world_.hypervisor->set_usage(id_, {.memory_mib = next_ += 100, .taken = {}});
        world_.pass(13s);
        const auto seen = world_.get("/v1/vms/" + id_);
        const auto* usage = seen.at("/status/usage").if_object();
        return usage != nullptr && usage->at("memory_mib").to_number<std::uint64_t>() == next_;
    }

private:
    World& world_;
    std::string id_;
    std::uint64_t next_ = 0;
};

const json::object* condition(const Reply& vm, std::string_view type) {
    for (const auto& each : vm.at("/status/conditions").as_array())
        if (each.at("type").as_string() == type) return each.if_object();
    return nullptr;
}

std::vector<std::string> create_several(World& world, std::size_t count) {
    std::vector<std::string> ids;
    ids.reserve(count);
    for (std::size_t n = 0; n < count; ++n) ids.push_back(world.create_vm("vm-" + std::to_string(n)));
    return ids;
}

}  // namespace

TEST_CASE("guests whose agents hang don't make their neighbours' figures and addresses old") {
    World world;
    world.boot();
    world.add_image();
    const auto ids = create_several(world, 4);
    world.hypervisor->read_deadline = 60s;
    for (std::size_t n = 0; n < 3; ++n) world.hypervisor->hang("addresses " + ids[n]);
    Meter meter{world, ids.back()};
    for (int n = 0; n < 4; ++n) CHECK(meter.moves());
    world.hypervisor->set_addresses(ids.back(), {"10.0.0.9"});
    world.pass(3s);
    CHECK(world.get("/v1/vms/" + ids.back()).at("/status/addresses").as_array().size() == 1);
    CHECK(condition(world.get("/v1/vms/" + ids.front()), "MonitorAnswers") == nullptr);
}

TEST_CASE("more hung guests than are asked at once don't shut the others out for good") {
    World world;
    world.boot();
    world.add_image();
    const auto ids = create_several(world, 7);
    world.hypervisor->read_deadline = 5s;
    for (std::size_t n = 0; n < 6; ++n) world.hypervisor->hang("usage " + ids[n]);
    world.hypervisor->set_usage(ids.back(), {.memory_mib = 77, .taken = {}});
    world.pass(40s);
    CHECK(world.get("/v1/vms/" + ids.back()).at("/status/usage/memory_mib").to_number<int>() == 77);
    CHECK(condition(world.get("/v1/vms/" + ids.back()), "MonitorAnswers") == nullptr);
}

TEST_CASE("a VM is asked again only when its last answer has come") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->read_deadline = 10min;
    world.hypervisor->hang("usage " + id);
    world.pass(15s);
    const auto asked = world.hypervisor->count("usage");
    world.pass(5min);
    CHECK(world.hypervisor->count("usage") == asked);
}

TEST_CASE("a monitor that doesn't answer is told of until it does") {
    World world;
    world.boot();
    world.add_image();
    const auto stuck = world.create_vm("stuck");
    world.create_vm("healthy");
    world.pass(15s);
    world.hypervisor->hang("usage " + stuck);
    world.pass(30s);
    const auto vm = world.get("/v1/vms/stuck");
    const auto* told = condition(vm, "MonitorAnswers");
    REQUIRE(told != nullptr);
    CHECK(told->at("status").as_string() == "false");
    CHECK(told->at("reason").as_string() == "monitor_not_answering");
    const auto since = std::string{told->at("since").as_string()};
    CHECK(condition(world.get("/v1/vms/healthy"), "MonitorAnswers") == nullptr);

    // What its being left alone is answered with changes nothing.
    world.hypervisor->release("usage " + stuck);
    world.hypervisor->fail("usage", {base::Errc::hypervisor_unavailable, "left alone"}, 4);
    world.pass(12s);
    const auto later = world.get("/v1/vms/stuck");
    REQUIRE(condition(later, "MonitorAnswers") != nullptr);
    CHECK(std::string{condition(later, "MonitorAnswers")->at("since").as_string()} == since);
    CHECK(condition(world.get("/v1/vms/healthy"), "MonitorAnswers") == nullptr);
    world.hypervisor->heal("usage");
    world.pass(30s);
    CHECK(condition(world.get("/v1/vms/stuck"), "MonitorAnswers") == nullptr);
}

TEST_CASE("libvirt's own silence is laid at no VM's door") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("usage");
    world.hypervisor->hang("states");
    world.pass(40s);
    CHECK(condition(world.get("/v1/vms/web"), "MonitorAnswers") == nullptr);
    world.hypervisor->release("states");
    world.pass(30s);
    CHECK(condition(world.get("/v1/vms/web"), "MonitorAnswers") != nullptr);
}

TEST_CASE("a VM that was powered off and started again has a new monitor") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->hang("usage " + id);
    world.pass(30s);
    REQUIRE(condition(world.get("/v1/vms/web"), "MonitorAnswers") != nullptr);
    CHECK(world.post("/v1/vms/web/stop?wait=9", json::object{{"force", true}}).status == 200);
    CHECK(condition(world.get("/v1/vms/web"), "MonitorAnswers") == nullptr);
    world.hypervisor->release("usage " + id);
    CHECK(world.post("/v1/vms/web/start?wait=9").status == 200);
    world.pass(15s);
    CHECK(condition(world.get("/v1/vms/web"), "MonitorAnswers") == nullptr);
}
