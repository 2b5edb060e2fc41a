#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
namespace json = boost::json;

namespace {

// Everything that a change could leave.
std::string footprint(World& world) {
    std::string text = json::serialize(world.get("/v1/vms").body) + json::serialize(world.get("/v1/images").body) +
                       json::serialize(world.get("/v1/operations").body);
    for (const auto& file : world.files.files()) text += file + "\n";
    for (const auto& [id, domain] : world.hypervisor->all()) text += id + std::string{virt::name_of(domain.power)};
    return text + std::to_string(world.store.keys().size());
}

}  // namespace

TEST_CASE("a dry run tells what a change would do, and does nothing") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.files.put("/images/other.qcow2", fakes::qcow2_bytes(1 << 20));
    const auto before = footprint(world);
    const auto check = [&](net::Method method, const std::string& target, std::optional<json::value> body = {}) {
        CAPTURE(target);
        const auto reply = world.call(method, target + "?dry_run=true&wait=60", std::move(body),
                                      [](net::Request& request) { request.headers.set("Idempotency-Key", "k1"); });
        INFO(json::serialize(reply.body));
        REQUIRE(reply.status == 200);
        CHECK(reply.at("/valid").as_bool());
        CHECK_FALSE(reply.at("/would").as_array().empty());
        CHECK(reply.at("/resources").is_object());
        CHECK(footprint(world) == before);
        return reply;
    };
    using net::Method;
    const auto create = check(Method::post, "/v1/vms", vm_body("new", {{"vcpus", 2}}));
    CHECK(create.at("/resources/needed/vcpus").to_number<int>() == 2);
    CHECK(create.at("/resources/free/memory_mib").to_number<int>() > 0);
    check(Method::patch, "/v1/vms/web", json::object{{"spec", {{"vcpus", 3}}}});
    for (const auto* verb : {"stop", "restart", "reset", "pause", "suspend"})
        check(Method::post, std::string{"/v1/vms/web/"} + verb);
    check(Method::del, "/v1/vms/web");
    check(Method::post, "/v1/images", json::object{{"source", "file:///images/other.qcow2"}});
}

TEST_CASE("a dry run is refused with what the change would be refused with") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    using net::Method;
    CHECK(world.post("/v1/vms?dry_run=true", vm_body("web")).text("/code") == "already_exists");
    CHECK(world.post("/v1/vms?dry_run=true", vm_body("big", {{"memory_mib", 1 << 20}})).text("/code") ==
          "insufficient_resources");
    CHECK(world.post("/v1/vms/web/start?dry_run=true").text("/code") == "state_conflict");
    CHECK(world.post("/v1/vms/none/start?dry_run=true").status == 404);
    CHECK(world.post("/v1/vms/web/stop?dry_run=maybe").status == 422);
    CHECK(world.call(Method::del, "/v1/images/tiny?dry_run=true").text("/code") == "state_conflict");
    CHECK(world.post("/v1/images?dry_run=true", {{"source", "file:///nothing"}, {"name", "x"}}).status == 404);
    CHECK(world
              .call(Method::del, "/v1/vms/web?dry_run=true", {},
                    [](net::Request& request) { request.headers.set("If-Match", "\"g99-r1\""); })
              .status == 412);
    world.hypervisor->hang("pause");
    const auto pause = world.post("/v1/vms/web/pause");
    CHECK(world.post("/v1/vms/web/reset?dry_run=true").text("/code") == "operation_in_progress");
    CHECK(world.post("/v1/operations/" + pause.text("/id") + "/cancel?dry_run=true").text("/code") == "state_conflict");
    world.hypervisor->hang("start");
    const auto create = world.post("/v1/vms", vm_body("other"));
    CHECK(world.post("/v1/operations/" + create.text("/id") + "/cancel?dry_run=true").status == 200);
    CHECK(world.get("/v1/operations/" + create.text("/id")).text("/state") == "running");
}
