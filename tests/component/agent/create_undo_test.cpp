#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

const json::object with_data_disk{{"disks", {{"data", {{"size_gib", 1}}}}}};

// After a failed create: the operation, and nothing else.
void check_nothing_left(World& world, const std::vector<std::string>& files_before) {
    CHECK(world.files.files() == files_before);
    CHECK(world.hypervisor->all().empty());
    CHECK(world.store.vms().empty());
    CHECK(world.get("/v1/vms").at("/items").as_array().empty());
    // The name and the room are free again.
    const auto again = world.post("/v1/vms?wait=60", vm_body("web", with_data_disk));
    INFO(json::serialize(again.body));
    CHECK(again.status == 201);
}

}  // namespace

TEST_CASE("a create whose hypervisor call fails leaves nothing behind, before or after its effect") {
    using When = fakes::FakeHypervisor::When;
    const auto [call, when] = GENERATE(table<std::string, When>({{"define", When::before_effect},
                                                                 {"define", When::after_effect},
                                                                 {"start", When::before_effect},
                                                                 {"start", When::after_effect},
                                                                 {"ensure_network", When::before_effect}}));
    CAPTURE(call, when == When::after_effect);
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    world.hypervisor->fail(call, {base::Errc::hypervisor_error, "no luck"}, 1, when);

    const auto failed = world.post("/v1/vms?wait=60", vm_body("web", with_data_disk));
    CHECK(failed.status == 502);
    CHECK(failed.text("/detail") == "no luck");
    const auto op = world.get(failed.text("/operation"));
    CHECK(op.text("/state") == "failed");
    CHECK(op.text("/error/code") == "hypervisor_error");
    check_nothing_left(world, files_before);
}

TEST_CASE("a create that loses the hypervisor waits for it and leaves nothing behind") {
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    const std::string step = GENERATE("define", "start");
    const base::Error gone{base::Errc::hypervisor_unavailable, "libvirtd is gone"};
    // It was done all the same.
    world.hypervisor->fail(step, gone, 1, fakes::FakeHypervisor::When::after_effect);
    world.hypervisor->fail("power_off", gone, fakes::FakeHypervisor::always);
    world.hypervisor->fail("undefine", gone, fakes::FakeHypervisor::always);
    const auto failed = world.begin(net::Method::post, "/v1/vms?wait=300", vm_body("web", with_data_disk));
    world.pass(60s);
    CHECK_FALSE(failed->has_value());
    const auto operations = world.get("/v1/operations?limit=1");
    CHECK(operations.text("/items/0/state") == "running");
    CHECK(operations.at("/items/0/stalled").as_bool());
    world.hypervisor->heal("power_off");
    world.hypervisor->heal("undefine");
    world.pass(5s);
    REQUIRE(failed->has_value());
    CHECK((*failed)->status == 503);
    CHECK((*failed)->body.as_object().if_contains("left_behind") == nullptr);
    check_nothing_left(world, files_before);
}

TEST_CASE("a create during which the n-th change of a file fails leaves nothing behind") {
    // Every change the create makes, in turn, until one create goes through without the fault being met.
    bool met = true;
    unsigned n = 0;
    while (met) {
        ++n;
        REQUIRE(n < 50);
        CAPTURE(n);
        World world;
        world.boot();
        world.add_image();
        const auto files_before = world.files.files();
        world.files.fail_change(n, {base::Errc::io_error, "no luck"});
        const auto reply = world.post("/v1/vms?wait=60", vm_body("web", with_data_disk));
        met = reply.status != 201;
        if (met) check_nothing_left(world, files_before);
    }
    CHECK(n > 1);
}

TEST_CASE("a create whose qemu-img fails leaves nothing behind") {
    const auto n = GENERATE(1U, 2U);
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    world.processes.fail_run(n, base::Exit{1, "", "qemu-img: no luck"});
    const auto failed = world.post("/v1/vms?wait=60", vm_body("web", with_data_disk));
    CHECK(failed.status >= 500);
    check_nothing_left(world, files_before);
}

TEST_CASE("a create that can't be journalled never happened") {
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    world.store.fail_commit(1, {base::Errc::insufficient_storage, "the disk is full"});
    const auto failed = world.post("/v1/vms?wait=60", vm_body("web"));
    CHECK(failed.status == 507);
    CHECK(world.get("/v1/operations?kind=vm.create").at("/items").as_array().empty());
    check_nothing_left(world, files_before);
}

TEST_CASE("an end that can't be journalled at first is journalled later, and only then told") {
    World world;
    world.boot();
    world.add_image();
    const auto reply = world.begin(net::Method::post, "/v1/vms?wait=100", vm_body("web"));
    CHECK(reply->has_value());  // nothing takes time here
    world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    CHECK(world.post("/v1/vms/web/stop").status == 500);
    world.store.fail_always({});

    world.store.fail_commit(3, {base::Errc::io_error, "no luck"});  // 1: the acceptance, 2: its step, 3: the end
    const auto stop = world.begin(net::Method::post, "/v1/vms/web/stop?wait=100", json::object{{"force", true}});
    CHECK_FALSE(stop->has_value());
    world.pass(3s);
    REQUIRE(stop->has_value());
    CHECK((*stop)->status == 200);
}

TEST_CASE("a VM is ready once that is journalled, and not before") {
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->hang("start");
    const auto create = world.begin(net::Method::post, "/v1/vms?wait=60", vm_body("web"));
    world.settle();
    world.store.fail_always(base::Error{base::Errc::insufficient_storage, "the disk is full"});
    world.hypervisor->release("start");
    world.pass(5s);
    CHECK(world.get("/v1/vms/web").text("/status/phase") == "provisioning");
    CHECK_FALSE(create->has_value());
    world.store.fail_always({});
    world.pass(40s);
    REQUIRE(create->has_value());
    CHECK((*create)->status == 201);
    CHECK((*create)->text("/status/phase") == "ready");
}

TEST_CASE("a create tells at which of its steps it is") {
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->hang("start");
    const auto begun = world.post("/v1/vms", vm_body("web"));
    const auto op = world.get("/v1/operations/" + begun.text("/id"));
    CHECK(op.text("/progress/phase") == "start");
    CHECK(op.at("/progress/done").as_int64() == 4);
    CHECK(op.at("/progress/total").as_int64() == 5);
    CHECK(op.text("/progress/unit") == "steps");
    world.hypervisor->release("start");
    world.settle();
    CHECK(world.get("/v1/operations/" + begun.text("/id")).at("/progress/percent").to_number<int>() == 100);
}

TEST_CASE("a create that can't be undone keeps its VM in error with all its files, until a delete takes it away") {
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    world.hypervisor->fail("start", {base::Errc::hypervisor_error, "no luck"}, 1,
                           fakes::FakeHypervisor::When::after_effect);
    world.hypervisor->fail("power_off", {base::Errc::hypervisor_error, "it won't"}, fakes::FakeHypervisor::always);
    world.hypervisor->fail("undefine", {base::Errc::hypervisor_error, "it won't"}, fakes::FakeHypervisor::always);
    const auto failed = world.begin(net::Method::post, "/v1/vms?wait=60", vm_body("web", with_data_disk));
    world.pass(60s);
    REQUIRE(failed->has_value());
    CHECK((*failed)->status == 502);
    CHECK((*failed)->at("/left_behind").as_array().size() == 4);

    // The domain may run: what it stands on stays.
    const auto vm = world.get("/v1/vms/web");
    CHECK(vm.text("/status/phase") == "error");
    CHECK(vm.text("/status/power") == "running");
    CHECK(world.files.files().size() == files_before.size() + 3);
    CHECK(world.post("/v1/vms", vm_body("web")).status == 409);

    world.crash();
    world.boot();
    CHECK(world.get("/v1/vms/web").text("/status/phase") == "error");
    world.hypervisor->heal("power_off");
    world.hypervisor->heal("undefine");
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    check_nothing_left(world, files_before);
}

TEST_CASE("cancelling a create undoes it") {
    World world;
    world.boot();
    world.add_image();
    const auto files_before = world.files.files();
    auto body = vm_body("web", with_data_disk);
    body["wait_for"] = "address";
    const auto begun = world.post("/v1/vms", body);
    REQUIRE(begun.status == 202);
    world.pass(5s);
    const auto op = "/v1/operations/" + begun.text("/id");
    CHECK(world.get(op).text("/progress/phase") == "address");
    CHECK(world.post(op + "/cancel").status == 202);
    const auto ended = world.get(op + "?wait=30");
    CHECK(ended.text("/state") == "cancelled");
    check_nothing_left(world, files_before);
    CHECK(world.post(op + "/cancel").status == 409);
}

TEST_CASE("a cancel waits like every change when it is asked to") {
    World world;
    world.boot();
    world.add_image();
    auto body = vm_body("web");
    body["wait_for"] = "address";
    const auto first = world.post("/v1/vms", body);
    const auto ended = world.post("/v1/operations/" + first.text("/id") + "/cancel?wait=30");
    CHECK(ended.status == 200);
    CHECK(ended.text("/id") == first.text("/id"));
    CHECK(ended.text("/state") == "cancelled");

    const auto second = world.post("/v1/vms", body);
    world.pass(5s);
    world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    const auto cancel = "/v1/operations/" + second.text("/id") + "/cancel";
    const auto as_it_stands = world.post(cancel + "?wait=1");
    world.store.fail_always({});
    CHECK(as_it_stands.status == 202);
    CHECK(as_it_stands.text("/state") == "running");
    CHECK(as_it_stands.headers.find("Location").value_or("") == "/v1/operations/" + second.text("/id"));
    CHECK(world.post(cancel + "?wait=301").status == 422);
}

TEST_CASE("a create that waits for an address ends when it is there") {
    World world;
    world.boot();
    world.add_image();
    auto body = vm_body("web");
    body["wait_for"] = "address";
    const auto reply = world.begin(net::Method::post, "/v1/vms?wait=100", body);
    world.pass(5s);
    CHECK_FALSE(reply->has_value());
    const auto id = world.get("/v1/vms/web").text("/id");
    world.hypervisor->set_addresses(id, {"192.168.122.7"});
    world.pass(5s);
    REQUIRE(reply->has_value());
    CHECK((*reply)->status == 201);
    CHECK((*reply)->text("/status/addresses/0") == "192.168.122.7");
}
