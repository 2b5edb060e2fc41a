// In a network namespace of the test's own, changed with ip(8).
#include "net/network_watch.hpp"

#include "net/local_addresses.hpp"
#include "tests/component/net/own_network.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include <sched.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

// A machine with eth0 up, a cable in it, and a default route through it, and its watch, which has seen that.
class Machine {
public:
    Machine() {
        ip("link set lo up");
        ip("link add eth0 type veth peer name gw0");
        ip("link set eth0 up");
        ip("link set gw0 up");
        ip("addr add 192.0.2.10/24 dev eth0");
        ip("route add default via 192.0.2.1");
        watch_ = net::make_network_watch(loop_.get_executor()).value();
        settle();
    }
    // Whether these, which the kernel tells of at once, are a change.
    bool changes(const std::vector<std::string>& commands) {
        for (const auto& command : commands) ip(command);
        return settle();
    }
    // The same of an address of IPv6, which the kernel tells of when it gets to it.
    bool will_change(const std::string& command) {
        ip(command);
        for (int i = 0; i < 1000; ++i) {
            if (settle()) return true;
            std::this_thread::sleep_for(10ms);
        }
        return false;
    }
    // Runs until all that is to be read has been; whether it was a change.
    bool settle() {
        bool changed = false;
        for (;;) {
            if (!waiting_) wait();
            loop_.restart();
            if (loop_.poll() == 0) return changed;
            if (told_) changed = changed || *told_;
        }
    }
    // As much of settle(); whether it was a change.
    bool step(std::size_t handlers) {
        bool changed = false;
        for (std::size_t i = 0; i < handlers; ++i) {
            if (!waiting_) wait();
            loop_.restart();
            if (loop_.poll_one() == 0) break;
            if (told_) changed = changed || *told_;
        }
        return changed;
    }
    std::optional<bool> cancel() {
        stop_.emit(asio::cancellation_type::terminal);
        loop_.restart();
        loop_.run();
        return told_;
    }
    ~Machine() { (void)cancel(); }
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

private:
    // One at a time: a second would take the slot of the first.
    void wait() {
        REQUIRE_FALSE(waiting_);
        waiting_ = true;
        told_.reset();
        asio::co_spawn(loop_, watch_->changed(),
                       asio::bind_cancellation_slot(stop_.slot(), [this](const std::exception_ptr& error, bool told) {
                           if (error) std::rethrow_exception(error);
                           waiting_ = false;
                           told_ = told;
                       }));
    }

    asio::io_context loop_{1};
    asio::cancellation_signal stop_;
    std::unique_ptr<net::NetworkWatch> watch_;
    bool waiting_ = false;
    std::optional<bool> told_;
};

// Of addresses of a guest's interface: none of them is a change, and they are more than the socket has room for.
std::string storm(bool adds) {
    return std::string{"-batch - <<END\n$(for i in $(seq 0 15); do seq -f \"addr "} + (adds ? "add" : "del") +
           " 10.$i.%g.1/32 dev virbr0\" 0 255; done)\nEND";
}

}  // namespace

TEST_CASE("the watch tells of addresses and default routes that come and go") {
    in_own_network([] {
        Machine machine;
        CHECK_FALSE(machine.changes({}));
        CHECK(machine.changes({"addr add 198.51.100.7/24 dev eth0"}));
        CHECK(machine.changes({"addr del 198.51.100.7/24 dev eth0"}));
        CHECK(machine.will_change("-6 addr add 2001:db8::7/64 dev eth0 nodad"));
        CHECK(machine.changes({"route replace default via 192.0.2.254"}));
        CHECK(machine.changes({"route replace default via 192.0.2.1"}));
        CHECK(machine.changes({"route del default"}));
        CHECK(machine.changes({"route add default via 192.0.2.1"}));
        CHECK(machine.changes({"link set eth0 down"}));
        CHECK(machine.changes({"link set eth0 up", "route add default via 192.0.2.1"}));
        CHECK(machine.changes({"tuntap add dev tap0 mode tap", "link set tap0 up", "addr add 10.8.0.6/24 dev tap0"}));
        CHECK(machine.changes({"link del eth0"}));
    });
}

TEST_CASE("the watch tells of nothing when a VM starts or a lifetime is renewed") {
    in_own_network([] {
        Machine machine;
        CHECK_FALSE(machine.changes(
            {"link add virbr0 type bridge", "link set virbr0 up", "addr add 192.168.122.1/24 dev virbr0"}));
        CHECK_FALSE(machine.changes({"tuntap add dev vnet0 mode tap", "link set vnet0 master virbr0 up"}));
        CHECK_FALSE(machine.changes({"-6 addr add fe80::fc54:ff:fe00:1/64 dev vnet0 nodad"}));
        CHECK_FALSE(machine.changes({"link add veth0 type veth peer name veth1", "link set veth0 up",
                                     "link set veth1 up", "addr add 10.0.0.1/24 dev veth0"}));
        CHECK_FALSE(machine.changes({"link set vnet0 nomaster", "link del vnet0", "link del veth0"}));
        CHECK_FALSE(machine.changes({"addr change 192.0.2.10/24 dev eth0 valid_lft 3600 preferred_lft 1800"}));
        CHECK_FALSE(machine.changes({"-6 addr add fe80::1/64 dev eth0 nodad", "addr add 127.0.0.5/8 dev lo"}));
        CHECK_FALSE(
            machine.changes({"route add 203.0.113.0/24 via 192.0.2.1", "route add default via 192.0.2.1 table 52"}));
        CHECK(machine.changes({"addr add 198.51.100.7/24 dev eth0"}));  // it is still there
    });
}

TEST_CASE("what happens while nobody waits is told with the next call") {
    in_own_network([] {
        Machine machine;
        CHECK(machine.changes({"addr add 198.51.100.7/24 dev eth0", "addr add 198.51.100.8/24 dev eth0"}));
        CHECK_FALSE(machine.changes({}));
    });
}

// The kernel doesn't say what it was that the socket had no room for: only the comparison with what is there does.
TEST_CASE("more than the socket holds is a change only when addresses or default routes are others than before") {
    in_own_network([] {
        Machine machine;
        ip("link add virbr0 type bridge");
        CHECK_FALSE(machine.changes({storm(true)}));
        CHECK_FALSE(machine.changes({storm(false)}));
        CHECK(machine.changes({storm(true), "addr add 198.51.100.7/24 dev eth0"}));
        CHECK_FALSE(machine.changes({}));
        CHECK(machine.changes({storm(false), "route del default"}));
        CHECK_FALSE(machine.changes({storm(true), "addr del 198.51.100.7/24 dev eth0",
                                     "addr add 198.51.100.7/24 dev eth0"}));  // there and back
        // The new view is a whole one.
        CHECK_FALSE(machine.changes({"addr change 192.0.2.10/24 dev eth0 valid_lft 3600 preferred_lft 1800"}));
        CHECK(machine.changes({"addr del 192.0.2.10/24 dev eth0"}));
        CHECK(machine.changes({"route add default dev eth0"}));
    });
}

TEST_CASE("a change that comes while the network is looked at anew is told") {
    in_own_network([] {
        Machine machine;
        ip("link add virbr0 type bridge");
        bool adds = true;
        for (std::size_t steps = 0; steps < 8; ++steps) {
            CAPTURE(steps);
            ip(storm(adds));
            adds = !adds;
            bool changed = machine.step(steps);
            CHECK_FALSE(changed);
            changed = machine.changes({"addr add 203.0.113." + std::to_string(steps + 1) + "/24 dev eth0"});
            CHECK(changed);
            CHECK_FALSE(machine.changes({}));
        }
    });
}

TEST_CASE("a wait that is cancelled ends with false, and the watch can be asked again") {
    in_own_network([] {
        Machine machine;
        CHECK(machine.cancel() == false);
        CHECK(machine.changes({"addr add 198.51.100.7/24 dev eth0"}));
    });
}

TEST_CASE("local addresses are the global ones of interfaces that aren't guests', sorted and bounded") {
    in_own_network([] {
        CHECK(net::local_addresses().empty());
        const Machine machine;
        ip("-6 addr add 2001:db8::7/64 dev eth0 nodad");
        ip("-6 addr add fd00::7/64 dev eth0 nodad");
        ip("addr add 10.9.0.1/24 dev eth0");
        ip("addr add 169.254.7.7/16 dev eth0");
        ip("link add virbr0 type bridge");
        ip("link set virbr0 up");
        ip("addr add 192.168.122.1/24 dev virbr0");
        ip("link add eth1 type veth peer name gw1");
        ip("addr add 198.51.100.1/24 dev eth1");  // down
        CHECK(net::local_addresses() == std::vector<std::string>{"10.9.0.1", "192.0.2.10", "2001:db8::7", "fd00::7"});
        ip("link set eth1 up");
        for (int i = 1; i <= 20; ++i) ip("addr add 10.8.0." + std::to_string(i) + "/32 dev eth1");
        const auto many = net::local_addresses();
        REQUIRE(many.size() == 16);
        CHECK(std::vector(many.begin(), many.begin() + 5) ==
              std::vector<std::string>{"10.9.0.1", "192.0.2.10", "2001:db8::7", "fd00::7", "10.8.0.1"});
    });
}
