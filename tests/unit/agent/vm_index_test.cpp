#include "agent/vm/vm_index.hpp"

#include "fakes/virtual_clock.hpp"

#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::agent;
using namespace std::chrono_literals;

namespace {

Vm ready(std::string id, std::string name) {
    Vm vm;
    vm.id = std::move(id);
    vm.name = std::move(name);
    vm.phase = Phase::ready;
    return vm;
}

const Condition* condition(const Vm& vm, std::string_view type) {
    const auto it = std::ranges::find(vm.conditions, type, &Condition::type);
    return it == vm.conditions.end() ? nullptr : &*it;
}

}  // namespace

TEST_CASE("the revision grows with what shows and not with figures") {
    boost::asio::io_context loop;
    fakes::VirtualClock clock;
    VmIndex index{loop.get_executor(), clock, 1000};
    index.put(ready("1", "a"));
    const auto first = index.find("1")->revision;
    CHECK(first >= 1000);
    Observed seen{.present = true, .power = virt::Power::running};
    index.observe("1", seen);
    const auto second = index.find("1")->revision;
    CHECK(second > first);
    seen.usage = VmUsage{50, 10, 10};
    seen.at = clock.wall() + 10s;
    index.observe("1", seen);
    CHECK(index.find("1")->revision == second);
    CHECK(index.find("1")->observed.usage->memory_mib == 10);
    seen.addresses = {"10.0.0.1"};
    index.observe("1", seen);
    CHECK(index.find("1")->revision > second);
}

TEST_CASE("a name finds the managed VM before another domain of that name") {
    boost::asio::io_context loop;
    fakes::VirtualClock clock;
    VmIndex index{loop.get_executor(), clock, 1};
    auto other = ready("1", "web");
    other.managed = false;
    index.put(other);
    CHECK(index.find_ref("web")->id == "1");
    index.put(ready("2", "web"));
    CHECK(index.find_ref("web")->id == "2");
    CHECK(index.find_ref("1")->id == "1");
    CHECK(index.find_ref("nobody") == nullptr);
    index.put(ready("01a20d1b-00aa-7000-8000-00000000000f", "third"));
    CHECK(index.find_ref("01A20D1B-00AA-7000-8000-00000000000F")->name == "third");
    CHECK(index.find_ref("WEB") == nullptr);
}

TEST_CASE("putting a VM again keeps what was observed") {
    boost::asio::io_context loop;
    fakes::VirtualClock clock;
    VmIndex index{loop.get_executor(), clock, 1};
    index.put(ready("1", "a"));
    index.observe("1", {.present = true, .power = virt::Power::paused});
    index.put(ready("1", "a"));
    CHECK(index.find("1")->observed.power == virt::Power::paused);
}

TEST_CASE("conditions keep the time since which they hold") {
    boost::asio::io_context loop;
    fakes::VirtualClock clock;
    VmIndex index{loop.get_executor(), clock, 1};
    index.put(ready("1", "a"));
    index.observe("1", {.present = true, .power = virt::Power::running});
    REQUIRE(condition(*index.find("1"), "HasAddress") != nullptr);
    CHECK(condition(*index.find("1"), "HasAddress")->status == Verdict::no);
    const auto since = condition(*index.find("1"), "PowerAsWanted")->since;
    clock.advance(60s);
    index.observe("1", {.present = true, .power = virt::Power::running, .addresses = {"10.0.0.1"}});
    CHECK(condition(*index.find("1"), "HasAddress")->status == Verdict::yes);
    CHECK(condition(*index.find("1"), "HasAddress")->since > since);
    CHECK(condition(*index.find("1"), "PowerAsWanted")->since == since);
    index.observe("1", {.present = true, .power = virt::Power::off, .power_reason = "shutdown"});
    CHECK(condition(*index.find("1"), "PowerAsWanted")->status == Verdict::no);
    CHECK(condition(*index.find("1"), "PowerAsWanted")->reason == "shutdown");
    CHECK(condition(*index.find("1"), "HasAddress") == nullptr);
    index.observe("1", {.present = false});
    CHECK(condition(*index.find("1"), "DomainMissing") == nullptr);  // nobody looked for it so far
    index.observe("1", {.present = false, .at = clock.wall()});
    CHECK(condition(*index.find("1"), "DomainMissing") != nullptr);
    index.observe("1", {.present = true, .power = virt::Power::paused, .power_reason = "io_error"});
    CHECK(condition(*index.find("1"), "StorageFault") != nullptr);
}

TEST_CASE("a monitor that doesn't answer shows, with the time since it doesn't, while the VM runs") {
    boost::asio::io_context loop;
    fakes::VirtualClock clock;
    VmIndex index{loop.get_executor(), clock, 1};
    index.put(ready("1", "a"));
    Observed seen{.present = true, .power = virt::Power::running};
    index.observe("1", seen);
    CHECK(condition(*index.find("1"), "MonitorAnswers") == nullptr);
    const auto revision = index.find("1")->revision;
    seen.monitor_silent = true;
    index.observe("1", seen);
    const auto* told = condition(*index.find("1"), "MonitorAnswers");
    REQUIRE(told != nullptr);
    CHECK(told->status == Verdict::no);
    CHECK(told->reason == "monitor_not_answering");
    CHECK(index.find("1")->revision > revision);
    const auto since = told->since;
    clock.advance(60s);
    seen.addresses = {"10.0.0.1"};
    index.observe("1", seen);
    CHECK(condition(*index.find("1"), "MonitorAnswers")->since == since);
    seen.monitor_silent = false;
    index.observe("1", seen);
    CHECK(condition(*index.find("1"), "MonitorAnswers") == nullptr);
}

TEST_CASE("whether a VM's forwards listen is a condition of those that have some") {
    boost::asio::io_context loop;
    fakes::VirtualClock clock;
    VmIndex index{loop.get_executor(), clock, 1};
    index.put(ready("1", "a"));
    Observed seen{.present = true, .power = virt::Power::running};
    seen.forwards = ForwardsState{false, "port_taken", "web: 127.0.0.1:8080 is taken by another program"};
    index.observe("1", seen);
    CHECK(condition(*index.find("1"), "ForwardsReady") == nullptr);
    index.change("1", [](Vm& vm) { vm.spec.forwards["web"] = {"127.0.0.1", 8080, 80, Protocol::tcp}; });
    const auto* taken = condition(*index.find("1"), "ForwardsReady");
    REQUIRE(taken != nullptr);
    CHECK(taken->status == Verdict::no);
    CHECK(taken->reason == "port_taken");
    CHECK(taken->message == seen.forwards->message);
    const auto revision = index.find("1")->revision;
    seen.macs = {"52:54:00:00:00:01"};
    index.observe("1", seen);
    CHECK(index.find("1")->revision == revision);
    seen.forwards = ForwardsState{true, "listening", ""};
    index.observe("1", seen);
    CHECK(index.find("1")->revision > revision);
    CHECK(condition(*index.find("1"), "ForwardsReady")->status == Verdict::yes);
}
