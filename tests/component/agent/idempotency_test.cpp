#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

Reply with_key(World& world, net::Method method, const std::string& target, json::value body, const std::string& key,
               const std::string& who = "uid:0") {
    return world.call(method, target, std::move(body), [&](net::Request& request) {
        request.headers.set("Idempotency-Key", key);
        request.context.who.name = who;
    });
}

Reply create(World& world, const std::string& key, const std::string& name = "web",
             const std::string& query = "?wait=60") {
    return with_key(world, net::Method::post, "/v1/vms" + query, vm_body(name), key);
}

}  // namespace

TEST_CASE("a create that is asked for again with its key is answered again and done once") {
    World world;
    world.boot();
    world.add_image();
    const auto first = create(world, "k1");
    REQUIRE(first.status == 201);
    const auto again = create(world, "k1");
    CHECK(again.status == 201);
    CHECK(again.text("/id") == first.text("/id"));
    CHECK(again.headers.find("Idempotency-Replayed") == "true");
    CHECK_FALSE(first.headers.find("Idempotency-Replayed"));
    const auto plain = create(world, "k1", "web", "");
    CHECK(plain.status == 202);
    CHECK(plain.text("/target/id") == first.text("/id"));
    CHECK(world.hypervisor->all().size() == 1);
    CHECK(world.get("/v1/operations?kind=vm.create").at("/items").as_array().size() == 1);
}

TEST_CASE("a key that came with another request is refused, and another identity's key is its own") {
    World world;
    world.boot();
    world.add_image();
    REQUIRE(create(world, "k1").status == 201);
    const auto other = create(world, "k1", "other");
    CHECK(other.status == 422);
    CHECK(other.text("/code") == "idempotency_mismatch");
    CHECK(with_key(world, net::Method::del, "/v1/vms/web?wait=60", json::object{}, "k1").status == 422);
    const auto theirs = with_key(world, net::Method::post, "/v1/vms?wait=60", vm_body("theirs"), "k1", "uid:7");
    CHECK(theirs.status == 201);
    for (const auto& bad : {std::string{}, std::string{"a b"}, std::string(256, 'x')}) {
        const auto refused = create(world, bad, "third");
        CHECK(refused.status == 422);
        CHECK(refused.text("/errors/0/pointer") == "Idempotency-Key");
    }
    CHECK(create(world, std::string(255, 'x'), "third").status == 201);
}

TEST_CASE("a request that was refused uses up no key") {
    World world;
    world.boot();
    const auto refused = create(world, "k1");
    CHECK(refused.status == 422);
    world.add_image();
    CHECK(create(world, "k1").status == 201);
}

TEST_CASE("two requests with one key at the same time do it once") {
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->hang("start");
    const auto arrange = [](net::Request& request) { request.headers.set("Idempotency-Key", "k1"); };
    const auto first = world.send(net::Method::post, "/v1/vms?wait=60", vm_body("web"), arrange);
    const auto second = world.send(net::Method::post, "/v1/vms?wait=60", vm_body("web"), arrange);
    const auto third = world.send(net::Method::post, "/v1/vms", vm_body("web"), arrange);
    world.pass(1s);
    REQUIRE(third->has_value());
    CHECK((*third)->status == 202);
    world.hypervisor->release("start");
    world.pass(1s);
    REQUIRE(first->has_value());
    REQUIRE(second->has_value());
    CHECK((*first)->status == 201);
    CHECK((*second)->status == 201);
    CHECK(world.hypervisor->all().size() == 1);
}

TEST_CASE("a key outlives a crash, and the create that it began is gone on with") {
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->hang("define");
    REQUIRE(create(world, "k1", "web", "").status == 202);
    world.crash();
    world.boot();
    const auto again = create(world, "k1");
    CHECK(again.status == 201);
    CHECK(again.text("/status/power") == "running");
    CHECK(world.hypervisor->all().size() == 1);
}

TEST_CASE("what the agent's own end took back is begun again by its key") {
    World world;
    world.boot();
    world.files.put("/images/tiny.qcow2", fakes::qcow2_bytes(1 << 20));
    const json::object body{{"source", "file:///images/tiny.qcow2"}};
    int commits = 0;
    world.store.on_commit([&](const storage::Changes&) {
        if (++commits == 1) world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    });
    REQUIRE(with_key(world, net::Method::post, "/v1/images", body, "k1").status == 202);
    world.store.on_commit({});
    world.store.fail_always({});
    world.crash();
    world.boot();
    const auto again = with_key(world, net::Method::post, "/v1/images?wait=60", body, "k1");
    CHECK(again.status == 201);
    CHECK(again.text("/state") == "available");
}

TEST_CASE("keys live for a day") {
    World world;
    world.boot();
    world.add_image();
    REQUIRE(create(world, "k1").status == 201);
    world.pass(23h);
    CHECK(create(world, "k1").status == 201);
    world.pass(2h);
    CHECK(world.store.keys().empty());
    CHECK(create(world, "k1").status == 409);
}

TEST_CASE("deletes, changes, verbs and cancels take keys") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    using net::Method;
    const json::object patch{{"labels", {{"tier", "web"}}}};
    const auto changed = with_key(world, Method::patch, "/v1/vms/web?wait=9", patch, "k1");
    CHECK(changed.status == 200);
    const auto changed_again = with_key(world, Method::patch, "/v1/vms/web?wait=9", patch, "k1");
    CHECK(changed_again.at("/generation") == changed.at("/generation"));
    CHECK(with_key(world, Method::post, "/v1/vms/web/stop?wait=60", json::object{}, "k2").status == 200);
    CHECK(with_key(world, Method::post, "/v1/vms/web/stop?wait=60", json::object{}, "k2").status == 200);
    CHECK(with_key(world, Method::del, "/v1/vms/web?wait=60", json::object{}, "k3").status == 200);
    CHECK(with_key(world, Method::del, "/v1/vms/web?wait=60", json::object{}, "k3").status == 200);
    CHECK(world.call(Method::del, "/v1/vms/web?wait=60").status == 404);

    world.hypervisor->hang("start");
    const auto begun = create(world, "k4", "other", "");
    const auto href = "/v1/operations/" + begun.text("/id") + "/cancel";
    CHECK(with_key(world, Method::post, href + "?wait=60", json::object{}, "k5").status == 200);
    const auto repeated = with_key(world, Method::post, href + "?wait=60", json::object{}, "k5");
    CHECK(repeated.status == 200);
    CHECK(repeated.text("/state") == "cancelled");
    CHECK(world.post(href).status == 409);
    CHECK(create(world, "k4", "other").status == 409);
}
