#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;
using Types = std::vector<std::string>;

namespace {

std::uint64_t event_id(const Reply& list) {
    return std::stoull(std::string{list.headers.find("Ghost-Event-Id").value_or("0")});
}

constexpr auto their_id = "7d3c0f0e-1111-4222-8333-444455556666";

virt::DomainInfo their_domain() {
    virt::DomainInfo domain;
    domain.uuid = their_id;
    domain.name = "theirs";
    domain.power = virt::Power::running;
    domain.vcpus = 1;
    domain.memory_mib = 512;
    return domain;
}

bool ids_grow(const Watcher& watcher) {
    return std::ranges::is_sorted(watcher.events, std::ranges::less_equal{}, &Watcher::Event::id) &&
           std::ranges::adjacent_find(watcher.events, {}, &Watcher::Event::id) == watcher.events.end();
}

}  // namespace

TEST_CASE("a VM's life is told: created, its power, its changes, its end, and the operations beside it") {
    World world;
    world.boot();
    world.add_image();
    const auto watcher = world.watch();
    CHECK(watcher->status == 200);
    const auto id = world.create_vm();
    CHECK(world.call(net::Method::patch, "/v1/vms/web?wait=9", json::object{{"labels", {{"tier", "web"}}}}).status ==
          200);
    CHECK(world.post("/v1/vms/web/stop?wait=60").status == 200);
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    world.settle();

    const auto subject = "/v1/vms/" + id;
    const auto told = watcher->types_of(subject);
    REQUIRE(told.size() >= 5);
    CHECK(told.front() == "vm.created");
    CHECK(told.back() == "vm.deleted");
    CHECK(std::ranges::count(told, "vm.power") >= 2);
    CHECK(std::ranges::count(told, "vm.updated") >= 1);
    CHECK(watcher->events.back().data.is_object());
    CHECK(ids_grow(*watcher));
    const auto last_of = [&](std::string_view type) {
        const auto it = std::ranges::find_if(watcher->events.rbegin(), watcher->events.rend(),
                                             [&](const auto& event) { return event.type == type; });
        REQUIRE(it != watcher->events.rend());
        return *it;
    };
    CHECK(last_of("vm.deleted").data.at("name").as_string() == "web");
    CHECK(last_of("operation.updated").data.at("state").as_string() == "succeeded");
    CHECK(last_of("vm.power").data.at("status").at("power").as_string() == "off");
    CHECK(last_of("vm.updated").data.at("labels").at("tier").as_string() == "web");
}

TEST_CASE("what happens without the agent's doing is told, other people's domains too") {
    World world;
    world.boot();
    const auto watcher = world.watch();
    world.hypervisor->put(their_domain());
    world.settle();
    world.hypervisor->guest_crashes(their_id);
    world.settle();
    world.hypervisor->vanish(their_id);
    world.settle();
    CHECK(watcher->types_of(std::string{"/v1/vms/"} + their_id) == Types{"vm.created", "vm.power", "vm.deleted"});
}

TEST_CASE("a list tells the event to watch from, and a reader that resumes there misses nothing") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    const auto from = event_id(world.get("/v1/vms"));
    CHECK(from == event_id(world.get("/v1/operations")));
    CHECK(from == event_id(world.get("/v1/images")));
    CHECK(world.post("/v1/vms/web/pause?wait=60").status == 200);
    world.settle();
    const auto late = world.watch(from);
    const auto told = late->types_of("/v1/vms/" + id);
    CHECK(std::ranges::count(told, "vm.power") == 1);
    CHECK(ids_grow(*late));
    CHECK(late->events.front().id > from);
}

TEST_CASE("ids go on growing and what was told stays told after a crash") {
    World world;
    world.boot();
    world.add_image();
    const auto before = world.watch();
    const auto id = world.create_vm();
    world.settle();
    REQUIRE_FALSE(before->events.empty());
    const auto middle = before->events[before->events.size() / 2].id;
    const auto last = before->events.back().id;
    world.crash();
    world.boot();
    const auto resumed = world.watch(middle);
    CHECK(resumed->status == 200);
    REQUIRE(resumed->events.size() >= before->events.size() - before->events.size() / 2 - 1);
    const auto same = std::ranges::find(resumed->events, last, &Watcher::Event::id);
    CHECK(same != resumed->events.end());
    CHECK(world.post("/v1/vms/web/pause?wait=60").status == 200);
    world.settle();
    CHECK(resumed->events.back().id > last);
    CHECK(ids_grow(*resumed));
    CHECK(std::ranges::count(resumed->types_of("/v1/vms/" + id), "vm.created") == 0);
}

TEST_CASE("an agent that starts again tells only what changed meanwhile") {
    World world;
    world.boot();
    world.add_image();
    const auto gone = world.create_vm("gone");
    const auto same = world.create_vm("same");
    world.hypervisor->put(their_domain());
    world.pass(30s);
    const auto from = event_id(world.get("/v1/vms"));
    world.shut_down();
    world.before_boot = [&](fakes::FakeHypervisor& hypervisor) {
        hypervisor.vanish(gone);
        hypervisor.vanish(their_id);
    };
    world.boot();
    const auto watcher = world.watch(from);
    CHECK(watcher->types_of("/v1/vms/" + gone) == Types{"vm.power"});
    CHECK(watcher->types_of(std::string{"/v1/vms/"} + their_id) == Types{"vm.deleted"});
    CHECK(watcher->types_of("/v1/vms/" + same).empty());
    CHECK(std::ranges::count(watcher->types(), "operation.updated") == 0);
}

TEST_CASE("events that aren't kept any more are refused, and so are those of another life") {
    World world;
    world.boot();
    world.add_image();
    CHECK(world.watch(1)->status == 410);
    CHECK(world.watch(1)->code == "events_expired");
    CHECK(world.watch(event_id(world.get("/v1/vms")) + 1000)->status == 410);
    CHECK(world.call(net::Method::get, "/v1/events?after=x").status == 422);
    CHECK(world
              .call(net::Method::get, "/v1/events", {},
                    [](net::Request& request) { request.headers.set("Last-Event-ID", "nonsense"); })
              .status == 410);
}

TEST_CASE("a quiet stream is pinged every 15 seconds, and a stop of the agent ends it") {
    World world;
    world.boot();
    world.pass(5s);
    const auto watcher = world.watch();
    world.pass(46s);
    CHECK(watcher->pings == 3);
    CHECK_FALSE(watcher->ended);
    world.shut_down();
    CHECK(watcher->ended);
}

TEST_CASE("readers share one text, and one that hangs up is forgotten") {
    World world;
    world.boot();
    world.add_image();
    std::vector<std::shared_ptr<Watcher>> watchers;
    for (int i = 0; i < 100; ++i) watchers.push_back(world.watch());
    world.create_vm();
    world.settle();
    for (const auto& watcher : watchers) CHECK(watcher->types() == watchers.front()->types());
    watchers.front()->leave.emit(boost::asio::cancellation_type::terminal);
    world.settle();
    CHECK(watchers.front()->ended);
    const auto count = watchers.front()->events.size();
    CHECK(world.post("/v1/vms/web/pause?wait=60").status == 200);
    world.settle();
    CHECK(watchers.front()->events.size() == count);
    CHECK(watchers.back()->events.size() > count);
}

TEST_CASE("a database that takes no more keeps no event from its readers") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    const auto watcher = world.watch();
    world.store.fail_always(base::Error{base::Errc::insufficient_storage, "the disk is full"});
    world.hypervisor->guest_crashes(id);
    world.settle();
    CHECK(watcher->types_of("/v1/vms/" + id) == Types{"vm.power"});
    world.store.fail_always({});
}

TEST_CASE("who was told what was never written has to list again after a crash") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    const auto watcher = world.watch();
    world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    world.hypervisor->guest_crashes(id);
    world.settle();
    REQUIRE(watcher->types_of("/v1/vms/" + id) == Types{"vm.power"});
    const auto told = watcher->events.back().id;
    world.crash();
    world.store.fail_always({});
    // As it was before: there is nothing to tell.
    world.before_boot = [&](fakes::FakeHypervisor& hypervisor) {
        hypervisor.set_power(id, virt::Power::running, "booted");
    };
    world.boot();
    world.pass(2s);
    CHECK(world.watch(told)->status == 410);
}

TEST_CASE("VMs that were listed before their domains were read are told of when they are") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.hypervisor->put(their_domain());
    world.pass(30s);
    world.shut_down();
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("domains"); };
    world.boot();
    const auto list = world.get("/v1/vms");
    REQUIRE(list.at("/items").as_array().size() == 1);
    REQUIRE(list.text("/items/0/status/power") == "unknown");
    const auto watcher = world.watch(event_id(list));
    CHECK(watcher->status == 200);
    const auto again = event_id(world.get("/v1/vms"));
    world.hypervisor->release("domains");
    world.pass(20s);
    CHECK(watcher->types_of("/v1/vms/" + id) == Types{"vm.updated"});
    CHECK(watcher->types_of(std::string{"/v1/vms/"} + their_id).size() == 1);

    // A later run knows nothing of what such a list showed.
    world.before_boot = {};
    world.crash();
    world.boot();
    CHECK(world.watch(again)->status == 410);
}

TEST_CASE("what was listed before the domains were read is told of by the next run, if this one never reads them") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.pass(30s);
    world.shut_down();
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("domains"); };
    world.boot();
    const auto list = world.get("/v1/vms");
    REQUIRE(list.text("/items/0/status/power") == "unknown");
    CHECK(list.at("/items/0/status/conditions").as_array().empty());
    const auto before = world.watch(event_id(list));
    world.get("/v1/images");
    world.call(net::Method::del, "/v1/images/none");
    world.hypervisor->drop_link("gone");  // told of the agent, so that the reader has an event of this run
    world.pass(2s);
    REQUIRE_FALSE(before->events.empty());
    const auto last = before->events.back().id;
    world.crash();
    world.before_boot = {};
    world.boot();
    world.pass(20s);
    const auto after = world.watch(last);
    REQUIRE(after->status == 200);
    CHECK(after->types_of("/v1/vms/" + id) == Types{"vm.updated"});

    // And by that alone: a later start tells nothing twice.
    world.shut_down();
    world.boot();
    world.pass(20s);
    CHECK(world.watch(after->events.back().id)->types_of("/v1/vms/" + id).empty());
}

TEST_CASE("events that the database didn't take are written before newer ones") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    const auto watcher = world.watch();
    world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    world.hypervisor->guest_crashes(id);
    world.settle();
    world.store.fail_always({});
    world.hypervisor->put(their_domain());
    world.settle();
    REQUIRE(watcher->types_of("/v1/vms/" + id) == Types{"vm.power"});
    const auto last = watcher->events.back().id;
    world.crash();
    world.before_boot = [&](fakes::FakeHypervisor& hypervisor) {
        hypervisor.set_power(id, virt::Power::running, "booted");
    };
    world.boot();
    const auto resumed = world.watch(last);
    CHECK(resumed->status == 200);
    CHECK(resumed->types_of("/v1/vms/" + id) == Types{"vm.power"});
}
