#include "component/agent/guest_scene.hpp"

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

const std::string first_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const std::string second_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4e";

json::array keys_of(World& world) { return world.get("/v1/vms/web").at("/status/ssh_host_keys").as_array(); }

// An agent that answers, in a guest that gives no access.
struct KeyScene : GuestScene {
    KeyScene() : GuestScene{false} { cloud_init = R"({"status": "running"})"; }
};

}  // namespace

TEST_CASE("a guest's host keys are known once its agent answers, and asked for again when cloud-init is through") {
    KeyScene world;
    world.host_keys = first_key + " root@web\n";
    world.pass(25s);
    CHECK(keys_of(world) == json::array{first_key});
    const auto before = world.key_questions;
    world.pass(5min);
    CHECK(world.key_questions == before);
    // It makes new ones.
    const auto watcher = world.watch();
    world.host_keys = second_key + "\n";
    world.cloud_init = R"({"status": "done"})";
    world.pass(70s);
    CHECK(keys_of(world) == json::array{second_key});
    CHECK(world.key_questions == before + 1);
    CHECK_FALSE(watcher->types_of("/v1/vms/" + world.id).empty());
    world.pass(2h);
    CHECK(world.key_questions == before + 1);
}

TEST_CASE("a guest without host keys is asked ever more rarely") {
    KeyScene world;
    world.host_keys = "no keys here\n";
    world.pass(11min);
    CHECK(keys_of(world).empty());
    const auto early = world.key_questions;
    CHECK(early >= 2);
    CHECK(early <= 12);
    world.pass(1h);
    CHECK(world.key_questions - early <= 4);
    world.host_keys = first_key + "\n";
    world.pass(16min);
    CHECK(keys_of(world) == json::array{first_key});
}

TEST_CASE("host keys are forgotten when the guest boots anew or is off") {
    KeyScene world;
    world.host_keys = first_key + "\n";
    world.pass(25s);
    REQUIRE(keys_of(world).size() == 1);
    world.host_keys = second_key + "\n";
    CHECK(world.post("/v1/vms/web/reset?wait=9").status == 200);
    CHECK(keys_of(world).empty());
    world.pass(25s);
    CHECK(keys_of(world) == json::array{second_key});
    CHECK(world.post("/v1/vms/web/stop?wait=9", json::object{{"force", true}}).status == 200);
    CHECK(keys_of(world).empty());
}

TEST_CASE("a guest whose agent doesn't answer is not asked for host keys") {
    KeyScene world;
    world.hypervisor->set_guest_run(world.id, {});
    world.pass(10min);
    CHECK(world.key_questions == 0);
    CHECK(keys_of(world).empty());
}
