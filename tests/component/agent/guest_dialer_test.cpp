// Between this host and a guest, each with a network of its own. Needs root.
#include "agent/access/guest_dialer.hpp"

#include "agent/vm/vm_index.hpp"
#include "component/net/own_network.hpp"
#include "fakes/awaiting.hpp"
#include "fakes/virtual_clock.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/post.hpp>
#include <catch2/catch.hpp>

#include <fcntl.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace asio = boost::asio;
namespace ip_ns = boost::asio::ip;

namespace {

constexpr auto card = "52:54:00:0a:0b:0c";
constexpr auto address = "192.168.7.10";

base::Instant soon() { return std::chrono::steady_clock::now() + 10s; }

agent::Vm vm_with(std::string id, std::vector<std::string> addresses, std::vector<std::string> leases = {}) {
    agent::Vm vm;
    vm.id = vm.name = std::move(id);
    vm.phase = agent::Phase::ready;
    vm.observed.present = true;
    vm.observed.power = virt::Power::running;
    vm.observed.addresses = std::move(addresses);
    vm.observed.leases = std::move(leases);
    vm.observed.macs = {card};
    return vm;
}

// A host with a bridge, and a guest on it that listens on port 80.
class Net {
public:
    Net() {
        ip("link set lo up");
        ip("link add name br0 type bridge");
        ip("link set br0 up");
        ip("addr add 192.168.7.1/24 dev br0");
        ip("route add default via 192.168.7.254");  // where nobody is
        ip(std::string{"link add tap0 type veth peer name eth0 address "} + card);
        ip("link set tap0 master br0");
        ip("link set tap0 up");
        ip("link set eth0 netns " + guest_.id());
        guest_.run([this] {
            ip("addr add 192.168.7.10/24 dev eth0");
            ip("link set eth0 up");
            server_.emplace(loop.context, ip_ns::tcp::endpoint{ip_ns::make_address(address), 80});
            datagrams_.emplace(loop.context, ip_ns::udp::endpoint{ip_ns::make_address(address), 53});
        });
    }

    base::Result<net::StreamSocket> connect(const agent::Vm& vm, std::uint16_t port = 80) {
        know(vm);
        return await(dialer->connect(agent::place_of(vm), port, soon()));
    }
    base::Result<ip_ns::udp::socket> connect_udp(const agent::Vm& vm) {
        know(vm);
        return await(dialer->connect_udp(agent::place_of(vm), 53, soon()));
    }
    void know(const agent::Vm& vm) {
        index.put(vm);
        index.observe(vm.id, vm.observed);
    }
    std::string datagram() {
        std::string bytes(100, '\0');
        bytes.resize(datagrams_->receive(asio::buffer(bytes)));
        return bytes;
    }

    fakes::TestLoop loop;
    fakes::VirtualClock clock;
    agent::VmIndex index{loop.context.get_executor(), clock, 1};
    std::unique_ptr<agent::GuestDialer> dialer = agent::make_guest_dialer(index);

private:
    template <class T>
    static asio::awaitable<void> keep(asio::awaitable<base::Result<T>> task, std::optional<base::Result<T>>& result) {
        result.emplace(co_await std::move(task));
    }
    // Not TestLoop's: a socket has no default.
    template <class T>
    base::Result<T> await(asio::awaitable<base::Result<T>> task) {
        std::optional<base::Result<T>> result;
        loop.await(keep(std::move(task), result));
        return *std::move(result);
    }

    OtherNetwork guest_;
    std::optional<ip_ns::tcp::acceptor> server_;
    std::optional<ip_ns::udp::socket> datagrams_;
};

template <class T>
std::string refusal(const base::Result<T>& result) {
    if (result) return "";
    return std::string{base::name_of(result.error().code)} + " " + result.error().detail;
}

}  // namespace

TEST_CASE("a guest is connected to at its own address") {
    in_own_network([] {
        Net net;
        auto socket = net.connect(vm_with("web", {"fe80::1", address}));
        REQUIRE(socket);
        CHECK(socket->non_blocking());
        CHECK((::fcntl(socket->native_handle(), F_GETFD) & FD_CLOEXEC) != 0);
        CHECK((::fcntl(socket->native_handle(), F_GETFL) & O_NONBLOCK) != 0);
        CHECK_THAT(refusal(net.connect(vm_with("web", {address}), 81)),
                   Catch::StartsWith("source_unavailable the guest refuses connections to its port 81"));
        CHECK_THAT(refusal(net.connect(vm_with("web", {}))), Catch::StartsWith("state_conflict"));
    });
}

TEST_CASE("datagrams reach a guest that nothing was sent to before") {
    in_own_network([] {
        Net net;
        // The link is up by then, and all about it is forgotten.
        REQUIRE(net.connect(vm_with("web", {address})));
        ip("neigh flush dev br0");
        auto socket = net.connect_udp(vm_with("web", {address}));
        INFO(refusal(socket));
        REQUIRE(socket);
        CHECK(socket->non_blocking());
        socket->send(asio::buffer("hello", 5));
        CHECK(net.datagram() == "hello");
        CHECK_THAT(refusal(net.connect_udp(vm_with("web", {"192.168.7.99"}))),
                   Catch::StartsWith("source_unavailable the guest can't be reached: nobody answers"));
        auto stranger = vm_with("web", {address});
        stranger.observed.macs = {"52:54:00:00:00:01"};
        CHECK_THAT(refusal(net.connect_udp(stranger)), Catch::StartsWith("address_not_allowed"));
    });
}

TEST_CASE("an address that another network card answers for is not the guest's") {
    in_own_network([] {
        Net net;
        auto stranger = vm_with("web", {address});
        stranger.observed.macs = {"52:54:00:00:00:01"};
        CHECK_THAT(refusal(net.connect(stranger)), Catch::StartsWith("address_not_allowed") && Catch::Contains(card) &&
                                                       Catch::Contains("none of the VM's network cards"));
        // One that its plan gave it counts while the hypervisor hasn't said.
        auto planned = stranger;
        planned.observed.macs = {};
        CHECK_THAT(refusal(net.connect(planned)), Catch::StartsWith("state_conflict"));
        planned.plan.macs = {{"eth0", card}};
        CHECK(net.connect(planned));
    });
}

TEST_CASE("addresses that no guest can have are not connected to") {
    in_own_network([] {
        Net net;
        for (const auto* claimed :
             {"127.0.0.1", "127.9.9.9", "192.168.7.1", "192.168.7.255", "169.254.1.1", "0.0.0.0", "224.0.0.1", "::1",
              "::", "fe80::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:192.168.7.1", "203.0.113.5"}) {
            CAPTURE(claimed);
            CHECK_THAT(refusal(net.connect(vm_with("web", {claimed}))), Catch::StartsWith("address_not_allowed"));
            CHECK_THAT(refusal(net.connect_udp(vm_with("web", {claimed}))), Catch::StartsWith("address_not_allowed"));
            // The one that it has is found all the same.
            CHECK(net.connect(vm_with("web", {claimed, address})));
        }
    });
}

TEST_CASE("another VM's address is not connected to") {
    in_own_network([] {
        Net net;
        net.know(vm_with("db", {address}, {address}));
        for (const auto& leases : {std::vector<std::string>{}, {address}})
            CHECK_THAT(refusal(net.connect(vm_with("web", {address}, leases))),
                       Catch::StartsWith("address_not_allowed") && Catch::Contains("the VM db has it, too"));
        // What a guest says of itself takes nothing from the one that was given the address.
        net.index.change("db", [](agent::Vm& vm) { vm.observed.leases = {"192.168.7.11"}; });
        CHECK(net.connect(vm_with("web", {address}, {address})));
        CHECK_THAT(refusal(net.connect(vm_with("web", {address}))), Catch::StartsWith("address_not_allowed"));
    });
}

TEST_CASE("addresses that libvirt gave out are tried before those that a guest says it has, and IPv4's first") {
    const auto vm =
        vm_with("web", {"10.0.0.1", "2001:db8::1", "2001:db8::2", "192.168.7.10"}, {"192.168.7.10", "2001:db8::2"});
    CHECK(agent::place_of(vm).addresses ==
          std::vector<std::string>{"192.168.7.10", "10.0.0.1", "2001:db8::2", "2001:db8::1"});
}

TEST_CASE("connecting to a guest can be cancelled") {
    in_own_network([] {
        Net net;
        const auto vm = vm_with("web", {"192.168.7.99"});
        for (const bool udp : {false, true}) {
            asio::post(net.loop.context, [&net] { asio::post(net.loop.context, [&net] { net.loop.cancel(); }); });
            if (udp)
                CHECK(refusal(net.connect_udp(vm)) == "cancelled ");
            else
                CHECK(refusal(net.connect(vm)) == "cancelled ");
        }
    });
}
