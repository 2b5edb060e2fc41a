#include "agent/vm/guest_clocks.hpp"

#include "component/agent/world.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;

namespace {

const virt::GuestRun has_agent{.how = virt::GuestRun::How::exited, .output = R"({"status": "done"})"};

// An agent with VMs "vm-0", "vm-1", ... that run and have guest agents.
struct Scene : World {
    explicit Scene(std::size_t count) {
        boot();
        add_image();
        ids.reserve(count);
        for (std::size_t n = 0; n < count; ++n) {
            ids.push_back(create_vm("vm-" + std::to_string(n)));
            hypervisor->set_guest_run(ids.back(), has_agent);
        }
        pass(5s);
    }
    // The host sleeps for eight hours.
    void sleep() {
        clock.sleep(8h);
        pass(2s);
    }
    [[nodiscard]] std::size_t times_set(std::size_t n) const { return hypervisor->guest_times(ids[n]).size(); }
    [[nodiscard]] std::size_t asked() const { return hypervisor->count("set_guest_time"); }
    [[nodiscard]] std::size_t told(std::string_view message) {
        log.flush();
        const auto messages = logged.messages();
        return static_cast<std::size_t>(std::ranges::count(messages, message));
    }
    std::vector<std::string> ids;
};

constexpr auto not_set = "the guest's clock can't be set";

}  // namespace

TEST_CASE("after the host slept the clocks of its guests are set, once") {
    Scene world{6};
    world.pass(1h);
    CHECK(world.asked() == 0);
    world.sleep();
    for (const auto& id : world.ids) {
        const auto times = world.hypervisor->guest_times(id);
        REQUIRE(times.size() == 1);
        CHECK(std::chrono::abs(times.front() - world.clock.wall()) <= 2s);
    }
    world.pass(1h);
    CHECK(world.asked() == 6);
    world.sleep();
    CHECK(world.asked() == 12);
    CHECK(world.told("the host woke up") == 2);
}

TEST_CASE("guests that are off, paused or others' keep their clocks, and one without an agent is asked once") {
    Scene world{4};
    world.hypervisor->set_guest_run(world.ids[1], {});
    CHECK(world.post("/v1/vms/vm-2/pause?wait=9").status == 200);
    CHECK(world.post("/v1/vms/vm-3/stop?wait=9", boost::json::object{{"force", true}}).status == 200);
    const std::string other = "0198a000-0000-7000-8000-000000000001";
    virt::DomainInfo domain;
    domain.uuid = other;
    domain.name = "other";
    domain.power = virt::Power::running;
    world.hypervisor->put(domain);
    world.hypervisor->set_guest_run(other, has_agent);
    world.pass(5s);
    world.sleep();
    world.pass(5min);
    CHECK(world.times_set(0) == 1);
    CHECK(world.asked() == 2);
    CHECK(world.hypervisor->guest_times(other).empty());
    CHECK(world.told(not_set) == 0);
}

TEST_CASE("a guest whose clock couldn't be set is asked again, a few times") {
    Scene world{1};
    const base::Error fault{base::Errc::hypervisor_error, "the agent said no"};
    SECTION("it comes right") {
        world.hypervisor->fail("set_guest_time", fault, 2);
        world.sleep();
        CHECK(world.times_set(0) == 0);
        world.pass(1min);
        REQUIRE(world.times_set(0) == 1);
        CHECK(std::chrono::abs(world.hypervisor->guest_times(world.ids[0]).front() + 1min - world.clock.wall()) < 20s);
        CHECK(world.told(not_set) == 0);
    }
    SECTION("it doesn't") {
        world.hypervisor->fail("set_guest_time", fault, fakes::FakeHypervisor::always);
        world.sleep();
        world.pass(1h);
        CHECK(world.asked() == agent::GuestClocks::tries);
        CHECK(world.told(not_set) == 1);
    }
    SECTION("it goes away") {
        world.hypervisor->fail("set_guest_time", fault, fakes::FakeHypervisor::always);
        world.sleep();
        world.hypervisor->guest_powers_off(world.ids[0]);
        world.pass(1h);
        CHECK(world.asked() == 1);
        CHECK(world.told(not_set) == 0);
    }
}

TEST_CASE("guests that hang hold up nobody for good") {
    Scene world{10};
    world.hypervisor->read_deadline = 10s;
    for (std::size_t n = 0; n < 6; ++n) world.hypervisor->hang("set_guest_time " + world.ids[n]);
    world.sleep();
    world.pass(30s);
    for (std::size_t n = 6; n < 10; ++n) CHECK(world.times_set(n) == 1);
    world.pass(5min);
    CHECK(world.asked() == 4 + 6 * agent::GuestClocks::tries);
    CHECK(world.told(not_set) == 6);
}

TEST_CASE("a host that sleeps again before all clocks are set has them all set again") {
    Scene world{1};
    world.hypervisor->fail("set_guest_time", {base::Errc::hypervisor_unavailable, "not yet"}, 1);
    world.sleep();
    CHECK(world.times_set(0) == 0);
    world.sleep();
    CHECK(world.times_set(0) == 1);
    CHECK(std::chrono::abs(world.hypervisor->guest_times(world.ids[0]).back() - world.clock.wall()) < 10s);
}

TEST_CASE("a few guests are asked at once, and an agent that stops waits for none") {
    Scene world{5};
    world.hypervisor->read_deadline = 1h;
    world.hypervisor->hang("set_guest_time");
    world.sleep();
    CHECK(world.asked() == agent::GuestClocks::at_once);
    world.shut_down();
    CHECK(world.asked() == agent::GuestClocks::at_once);
}
