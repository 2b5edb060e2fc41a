#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

Reply drain(World& world, json::object body = {}) {
    const auto reply = world.post("/v1/agent/drain?wait=60", std::move(body));
    INFO(json::serialize(reply.body));
    REQUIRE(reply.status == 200);
    return reply;
}

void check_refused(const Reply& reply) {
    INFO(json::serialize(reply.body));
    CHECK(reply.status == 503);
    CHECK(reply.text("/code") == "draining");
    CHECK(reply.text("/detail").starts_with("the agent has taken no new VMs since "));
    CHECK(reply.text("/detail").ends_with("POST /v1/agent/undrain ends that"));
}

virt::DomainInfo their_domain() {
    virt::DomainInfo domain;
    domain.uuid = "7d3c0f0e-1111-4222-8333-444455556666";
    domain.name = "legacy";
    domain.power = virt::Power::off;
    return domain;
}

}  // namespace

TEST_CASE("a drained node makes and adopts no VMs until that is ended") {
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->put(their_domain());
    world.settle();
    CHECK(world.get("/v1").at("/drain").is_null());

    const auto drained = drain(world, {{"reason", "kernel update"}});
    CHECK(drained.text("/drain/reason") == "kernel update");
    CHECK(drained.text("/drain/by") == "socket:uid:0");
    CHECK(drained.text("/drain/since") == base::rfc3339(world.clock.wall()));
    CHECK(world.get("/v1").body == drained.body);
    const auto created = world.post("/v1/vms?wait=60", vm_body("web"));
    check_refused(created);
    CHECK(created.text("/detail").contains(": kernel update (said by socket:uid:0)"));
    CHECK(created.text("/detail").contains(drained.text("/drain/since")));
    CHECK(created.at("/drain") == drained.at("/drain"));
    check_refused(world.post("/v1/vms?dry_run=true", vm_body("web")));
    check_refused(world.post("/v1/vms/legacy/adopt?wait=60"));
    CHECK(world.get("/v1/vms?managed=true").at("/items").as_array().empty());
    CHECK(world.get("/v1/operations?kind=vm.create").at("/items").as_array().empty());

    const auto ended = world.post("/v1/agent/undrain?wait=60");
    CHECK(ended.status == 200);
    CHECK(ended.at("/drain").is_null());
    world.create_vm();
    CHECK(world.post("/v1/vms/legacy/adopt?wait=60").status == 200);
}

TEST_CASE("what a drained node has goes on, and so does a create that was accepted before") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.hypervisor->hang("define");
    const auto late = world.post("/v1/vms", vm_body("late"));
    REQUIRE(late.status == 202);
    drain(world);
    world.hypervisor->release("define");
    CHECK(world.get("/v1/operations/" + late.text("/id") + "?wait=60").text("/state") == "succeeded");

    for (const auto* verb : {"stop", "start", "pause", "resume"})
        CHECK(world.post(std::string{"/v1/vms/web/"} + verb + "?wait=60", json::object{}).status == 200);
    CHECK(world.call(net::Method::patch, "/v1/vms/web?wait=60", json::object{{"labels", {{"tier", "web"}}}}).status ==
          200);
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    CHECK(world.get("/v1/vms/late").text("/status/power") == "running");
}

TEST_CASE("a drain is an operation like any other") {
    World world;
    world.boot();
    const auto with_key = [](net::Request& request) { request.headers.set("Idempotency-Key", "k1"); };
    const auto preview = world.post("/v1/agent/drain?dry_run=true");
    CHECK(preview.at("/would") == json::array{"take no new VMs"});
    CHECK(world.get("/v1").at("/drain").is_null());
    CHECK(world.post("/v1/agent/undrain?dry_run=true").at("/would").as_array().empty());

    const auto begun = world.call(net::Method::post, "/v1/agent/drain", json::object{{"reason", "x"}}, with_key);
    CHECK(begun.status == 202);
    CHECK(begun.text("/kind") == "agent.drain");
    CHECK(begun.text("/target/type") == "agent");
    const auto again = world.call(net::Method::post, "/v1/agent/drain", json::object{{"reason", "x"}}, with_key);
    CHECK(again.text("/id") == begun.text("/id"));
    CHECK(world.get("/v1/operations/" + begun.text("/id")).text("/state") == "succeeded");
    CHECK(world.get("/v1/operations/" + begun.text("/id")).text("/result/href") == "/v1");
    CHECK(world.get("/v1/operations?kind=agent.drain").at("/items").as_array().size() == 1);
    CHECK(world.post("/v1/agent/undrain?dry_run=true").at("/would") == json::array{"take new VMs again"});
    CHECK(world.post("/v1/agent/undrain?wait=60").status == 200);
    CHECK(world.get("/v1/operations?kind=agent.undrain").at("/items").as_array().size() == 1);
    CHECK(world.post("/v1/agent/undrain?wait=60").status == 200);
}

TEST_CASE("a drained node gets another reason, and keeps the one it has when none is given") {
    World world;
    world.boot();
    const auto first = drain(world, {{"reason", "noise"}});
    world.pass(1h);
    CHECK(drain(world).at("/drain") == first.at("/drain"));
    CHECK(world.post("/v1/agent/drain?dry_run=true").at("/would").as_array().empty());
    const auto other =
        world.call(net::Method::post, "/v1/agent/drain?wait=60", json::object{{"reason", "moving house"}},
                   [](net::Request& r) { r.context.who.name = "uid:1000"; });
    CHECK(other.text("/drain/reason") == "moving house");
    CHECK(other.text("/drain/by") == "socket:uid:1000");
    CHECK(other.at("/drain/since") == first.at("/drain/since"));
}

TEST_CASE("of two drains at once the one without a reason leaves the other's") {
    World world;
    world.boot();
    const auto ask = [&world](json::object body) {
        return world.send(net::Method::post, "/v1/agent/drain?wait=60", std::move(body));
    };
    const auto first = ask({{"reason", "kernel update"}});
    const auto second = ask({});
    world.settle();
    for (const auto& reply : {first, second}) {
        REQUIRE(reply->has_value());
        CHECK((*reply)->status == 200);
    }
    CHECK(world.get("/v1").text("/drain/reason") == "kernel update");
    world.crash();
    world.boot();
    CHECK(world.get("/v1").text("/drain/reason") == "kernel update");
}

TEST_CASE("a body that a drain doesn't know is refused") {
    World world;
    world.boot();
    CHECK(world.post("/v1/agent/drain", {{"reason", std::string(200, 'x')}}).status == 202);
    CHECK(world.post("/v1/agent/drain", {{"reason", std::string(201, 'x')}}).text("/errors/0/pointer") == "/reason");
    CHECK(world.post("/v1/agent/drain", {{"reason", 5}}).text("/code") == "validation_failed");
    CHECK(world.post("/v1/agent/drain", {{"until", "noon"}}).text("/code") == "validation_failed");
    CHECK(world.post("/v1/agent/drain", json::array{}).text("/code") == "validation_failed");
    CHECK(world.post("/v1/agent/undrain", {{"reason", "x"}}).text("/code") == "validation_failed");
    CHECK(world.post("/v1/agent/drain?force=true").status == 422);
}

TEST_CASE("a node stays drained over a restart and a crash, and is free again over them, too") {
    World world;
    world.boot();
    world.add_image();
    const auto drained = drain(world, {{"reason", "kernel update"}});
    world.shut_down();
    world.pass(1h);
    world.boot();
    CHECK(world.get("/v1").at("/drain") == drained.at("/drain"));
    check_refused(world.post("/v1/vms", vm_body("web")));
    world.crash();
    world.boot();
    CHECK(world.get("/v1").at("/drain") == drained.at("/drain"));
    CHECK(world.post("/v1/agent/undrain?wait=60").status == 200);
    world.crash();
    world.boot();
    CHECK(world.get("/v1").at("/drain").is_null());
    world.create_vm();
}

TEST_CASE("a drain is in force with its acceptance: a crash right after that doesn't lose it") {
    World world;
    world.boot();
    bool cut = false;
    fakes::MemoryStore then;
    world.store.on_commit([&](const storage::Changes& changes) {
        if (cut || !std::ranges::any_of(changes, [](const storage::Change& change) {
                const auto* const fact = std::get_if<storage::FactRow>(&change);
                return fact != nullptr && fact->name == "drain";
            }))
            return;
        cut = true;
        then = world.store;
    });
    const auto begun = world.post("/v1/agent/drain");
    REQUIRE(begun.status == 202);
    REQUIRE(cut);
    world.crash();
    world.store = then;
    world.store.on_commit({});
    world.boot();
    CHECK(world.get("/v1").at("/drain").is_object());
    CHECK(world.get("/v1/operations/" + begun.text("/id") + "?wait=60").text("/state") == "succeeded");
}

TEST_CASE("a drain that can't be written down is none") {
    World world;
    world.boot();
    world.store.fail_always(base::Error{base::Errc::insufficient_storage, "the disk is full"});
    CHECK(world.post("/v1/agent/drain?wait=60").status == 507);
    CHECK(world.get("/v1").at("/drain").is_null());
    world.store.fail_always({});
}

TEST_CASE("a damaged record of a drain keeps the node drained") {
    World world;
    world.boot();
    world.shut_down();
    bool done = false;
    storage::Changes changes;
    changes.emplace_back(storage::FactRow{"drain", "{"});
    world.store.reopen();
    boost::asio::co_spawn(world.loop, world.store.commit(std::move(changes)),
                          [&done](const std::exception_ptr&, const base::Result<void>& r) { done = r.has_value(); });
    world.settle();
    REQUIRE(done);
    world.boot();
    CHECK(world.get("/v1").text("/drain/reason") == "the record of a drain is damaged");
    CHECK(world.post("/v1/agent/undrain?wait=60").at("/drain").is_null());
}

TEST_CASE("a drained node isn't ready, and as healthy as it was") {
    World world;
    world.boot();
    world.add_image();
    drain(world, {{"reason", "kernel update"}});
    const auto ready = world.get("/ready");
    CHECK(ready.status == 503);
    CHECK(ready.text("/reason").contains("kernel update"));
    CHECK(world.get("/health").status == 200);
    CHECK(world.get("/health").text("/status") == "healthy");
    CHECK(world.app->not_ready_because().empty());
    world.post("/v1/agent/undrain?wait=60");
    CHECK(world.get("/ready").status == 200);
}

TEST_CASE("of a drained node that stops it is said that it stops") {
    World world;
    world.boot();
    drain(world);
    world.app->operations().close_intake();
    const auto refused = world.post("/v1/agent/undrain");
    CHECK(refused.text("/code") == "draining");
    CHECK(refused.text("/detail") == "the agent is stopping");
    CHECK_FALSE(refused.body.as_object().contains("drain"));
    CHECK(world.get("/v1").at("/drain").is_object());
}

TEST_CASE("readers of events hear of a drain, of its new reason and of its end, each once") {
    World world;
    world.boot();
    const auto watcher = world.watch();
    world.settle();
    const auto told = [&watcher] { return watcher->types_of("/v1"); };
    const auto before = told().size();
    drain(world, {{"reason", "kernel update"}});
    world.settle();
    REQUIRE(told().size() == before + 1);
    const auto& events = watcher->events;
    const auto event = std::ranges::find(events.rbegin(), events.rend(), "/v1", &Watcher::Event::subject);
    REQUIRE(event != events.rend());
    CHECK(event->data.at_pointer("/drain/reason").as_string() == "kernel update");
    drain(world, {{"reason", "kernel update"}});
    drain(world, {{"reason", "noise"}});
    world.post("/v1/agent/undrain?wait=60");
    world.pass(5s);
    CHECK(told() == std::vector<std::string>(before + 3, "agent.updated"));
    watcher->leave.emit(boost::asio::cancellation_type::all);
    world.settle();
}
