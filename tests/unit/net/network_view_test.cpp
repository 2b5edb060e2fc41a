#include "net/network_view.hpp"

#include "tests/fakes/netlink_bytes.hpp"

#include <catch2/catch.hpp>

#include <vector>

using namespace ghost;
using fakes::NetlinkBytes;
using net::NetworkView;

namespace {

// A PC with eth0 (2), wlan0 (3), libvirt's bridge (4) and a guest's tap (5), which is on the network through eth0.
struct Pc {
    NetworkView view;

    Pc() {
        tell(NetlinkBytes{}.link(2, "eth0").link(3, "wlan0").link(4, "virbr0").link(5, "vnet0"));
        tell(NetlinkBytes{}.host_address(2, "192.0.2.10"));
        tell(NetlinkBytes{}.default_route(2, "192.0.2.1"));
    }
    bool tell(const NetlinkBytes& bytes) { return view.take(bytes.bytes()).changed; }
};

}  // namespace

TEST_CASE("an address that comes or goes is a change, and one that is told of again isn't") {
    Pc pc;
    for (const auto* const address : {"198.51.100.7", "2001:db8::7", "10.0.0.7"}) {
        CAPTURE(address);
        CHECK(pc.tell(NetlinkBytes{}.host_address(3, address)));
        CHECK_FALSE(pc.tell(NetlinkBytes{}.host_address(3, address)));  // its lifetime was renewed
        CHECK(pc.tell(NetlinkBytes{}.host_address(3, address, RTM_DELADDR)));
        CHECK_FALSE(pc.tell(NetlinkBytes{}.host_address(3, address, RTM_DELADDR)));
    }
}

TEST_CASE("of a point-to-point interface the address is our own") {
    Pc pc;
    const auto tunnel = [](const char* own) {
        return NetlinkBytes{}.host_address(3, "100.64.0.1").address(IFA_LOCAL, own);
    };
    CHECK(pc.tell(tunnel("100.64.0.2")));
    CHECK_FALSE(pc.tell(tunnel("100.64.0.2")));
    CHECK(pc.tell(tunnel("100.64.0.3")));
}

TEST_CASE("what a VM's start brings along is no change") {
    Pc pc;
    CHECK_FALSE(pc.tell(NetlinkBytes{}.link(6, "vnet1", 0)));
    CHECK_FALSE(pc.tell(NetlinkBytes{}.link(6, "vnet1", IFF_UP)));
    CHECK_FALSE(pc.tell(NetlinkBytes{}.host_address(6, "fe80::fc54:ff:fe00:1", RTM_NEWADDR, RT_SCOPE_LINK)));
    for (const auto* const name : {"vnet1", "virbr1", "veth0a", "macvtap0"}) {
        CAPTURE(name);
        CHECK_FALSE(pc.tell(NetlinkBytes{}.link(6, name)));
        CHECK_FALSE(pc.tell(NetlinkBytes{}.host_address(6, "192.168.123.1")));
        CHECK_FALSE(pc.tell(NetlinkBytes{}.default_route(6, "192.168.123.254")));
        CHECK_FALSE(pc.tell(NetlinkBytes{}.host_address(6, "192.168.123.1", RTM_DELADDR)));
        CHECK_FALSE(pc.tell(NetlinkBytes{}.link(6, name, 0, RTM_DELLINK)));
    }
    // The tap leaves its bridge: told as a link removed, in the bridge's family.
    ifinfomsg port{};
    port.ifi_family = AF_BRIDGE;
    port.ifi_index = 2;
    CHECK_FALSE(pc.tell(NetlinkBytes{}.message(RTM_DELLINK, port).attribute(IFLA_IFNAME, "eth0")));
    CHECK(pc.tell(NetlinkBytes{}.default_route(2, "192.0.2.1", RTM_DELROUTE)));  // it was still known
}

TEST_CASE("a tap is a guest's while it is a bridge's port, and else may be a tunnel of the host's own") {
    Pc pc;
    CHECK_FALSE(pc.tell(NetlinkBytes{}.link(6, "tap7").attribute(IFLA_MASTER, 4)));
    CHECK_FALSE(pc.tell(NetlinkBytes{}.host_address(6, "192.168.123.1")));
    CHECK_FALSE(pc.tell(NetlinkBytes{}.default_route(6, "192.168.123.254")));
    CHECK_FALSE(pc.tell(NetlinkBytes{}.link(6, "tap7")));
    CHECK(pc.tell(NetlinkBytes{}.host_address(6, "10.8.0.6")));
    CHECK(pc.tell(NetlinkBytes{}.default_route(6, "10.8.0.1")));
}

TEST_CASE("addresses of link and host scope, and those not usable yet, are no change") {
    Pc pc;
    CHECK_FALSE(pc.tell(NetlinkBytes{}.host_address(3, "fe80::1", RTM_NEWADDR, RT_SCOPE_LINK)));
    CHECK_FALSE(pc.tell(NetlinkBytes{}.host_address(1, "127.0.0.2", RTM_NEWADDR, RT_SCOPE_HOST)));
    CHECK_FALSE(
        pc.tell(NetlinkBytes{}.host_address(3, "2001:db8::9", RTM_NEWADDR, RT_SCOPE_UNIVERSE, IFA_F_TENTATIVE)));
    CHECK_FALSE(pc.tell(NetlinkBytes{}.host_address(3, "2001:db8::9", RTM_NEWADDR, RT_SCOPE_UNIVERSE,
                                                    IFA_F_TENTATIVE | IFA_F_DADFAILED)));
    CHECK(pc.tell(NetlinkBytes{}.host_address(3, "2001:db8::9")));
}

TEST_CASE("a default route that comes, goes or gives way is a change") {
    Pc pc;
    CHECK_FALSE(pc.tell(NetlinkBytes{}.default_route(2, "192.0.2.1")));
    CHECK(pc.tell(NetlinkBytes{}.default_route(3, "198.51.100.1", RTM_NEWROUTE, 0, 600)));
    CHECK(pc.tell(NetlinkBytes{}.default_route(2, "192.0.2.254", RTM_NEWROUTE, NLM_F_REPLACE)));
    CHECK(pc.tell(NetlinkBytes{}.default_route(2, "192.0.2.1", RTM_NEWROUTE, NLM_F_REPLACE)));  // and back again
    CHECK(pc.tell(NetlinkBytes{}.default_route(2, "192.0.2.1", RTM_DELROUTE)));
    CHECK_FALSE(pc.tell(NetlinkBytes{}.default_route(2, "192.0.2.1", RTM_DELROUTE)));
    CHECK(pc.tell(NetlinkBytes{}.default_route(2, "fe80::1")));
}

TEST_CASE("other routes and other tables are no change") {
    Pc pc;
    rtmsg route{};
    route.rtm_family = AF_INET;
    route.rtm_table = RT_TABLE_MAIN;
    route.rtm_type = RTN_UNICAST;
    route.rtm_dst_len = 24;
    CHECK_FALSE(pc.tell(NetlinkBytes{}.message(RTM_NEWROUTE, route).address(RTA_DST, "203.0.113.0")));
    route.rtm_dst_len = 0;
    route.rtm_type = RTN_UNREACHABLE;
    CHECK_FALSE(pc.tell(NetlinkBytes{}.message(RTM_NEWROUTE, route)));
    route.rtm_type = RTN_UNICAST;
    route.rtm_table = RT_TABLE_COMPAT;
    const auto in_table = [&](std::uint32_t table) {
        return NetlinkBytes{}.message(RTM_NEWROUTE, route).attribute(RTA_TABLE, table).attribute(RTA_OIF, 3);
    };
    CHECK_FALSE(pc.tell(in_table(52)));  // Tailscale's
    CHECK(pc.tell(in_table(RT_TABLE_MAIN)));
}

TEST_CASE("an interface that goes down takes its routes along, which nobody tells") {
    Pc pc;
    CHECK_FALSE(pc.tell(NetlinkBytes{}.link(2, "eth0", IFF_UP | IFF_RUNNING)));
    CHECK(pc.tell(NetlinkBytes{}.link(2, "eth0", 0)));
    CHECK_FALSE(pc.tell(NetlinkBytes{}.link(2, "eth0", 0)));
    CHECK_FALSE(pc.tell(NetlinkBytes{}.link(2, "eth0", IFF_UP)));
    CHECK(pc.tell(NetlinkBytes{}.default_route(2, "192.0.2.1")));
    CHECK(pc.tell(NetlinkBytes{}.link(2, "eth0", IFF_UP, RTM_DELLINK)));
    CHECK(pc.tell(NetlinkBytes{}.host_address(2, "192.0.2.10")));
}

TEST_CASE("a route over several interfaces is known by all its hops") {
    Pc pc;
    rtmsg route{};
    route.rtm_family = AF_INET;
    route.rtm_table = RT_TABLE_MAIN;
    route.rtm_type = RTN_UNICAST;
    const auto over = [&](int first, int second) {
        std::string hops;
        for (const int interface : {first, second}) {
            rtnexthop hop{};
            hop.rtnh_len = sizeof hop;
            hop.rtnh_ifindex = interface;
            hops.append(reinterpret_cast<const char*>(&hop), sizeof hop);
        }
        return NetlinkBytes{}.message(RTM_NEWROUTE, route).attribute(RTA_MULTIPATH, hops);
    };
    CHECK(pc.tell(over(2, 3)));
    CHECK_FALSE(pc.tell(over(2, 3)));
    CHECK_FALSE(pc.tell(over(4, 5)));  // guests' only
    CHECK(pc.tell(NetlinkBytes{}.link(3, "wlan0", 0)));
}

TEST_CASE("the end of a dump, and one that has to be repeated, are told") {
    NetworkView view;
    CHECK(view.take(NetlinkBytes{}.link(2, "eth0").done().bytes()).dump_ended);
    CHECK_FALSE(view.take(NetlinkBytes{}.link(2, "eth0").bytes()).dump_ended);
    CHECK(view.take(NetlinkBytes{}.message(NLMSG_ERROR, nlmsgerr{}).bytes()).dump_ended);
    CHECK(view.take(NetlinkBytes{}.message(NLMSG_DONE, 0, NLM_F_DUMP_INTR).bytes()).interrupted);
}

TEST_CASE("bytes that are cut off anywhere, or lie about their lengths, do no harm") {
    const auto first = NetlinkBytes{}.link(2, "eth0123");
    auto whole = first;
    whole.default_route(2, "192.0.2.1").attribute(RTA_MULTIPATH, std::string(20, '\xff'));
    const auto bytes = whole.bytes();
    for (std::size_t length = 0; length <= bytes.size(); ++length) {
        const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length));
        const bool complete = length == 0 || length == first.bytes().size() || length == bytes.size();
        NetworkView view;
        CHECK(view.take(cut).interrupted == !complete);
    }
    for (std::size_t at = 0; at < bytes.size(); ++at)
        for (const auto value : {std::byte{0}, std::byte{1}, std::byte{0xff}}) {
            std::vector<std::byte> wrong(bytes.begin(), bytes.end());
            wrong[at] = value;
            NetworkView view;
            (void)view.take(wrong);
            (void)view.take(bytes);
        }
    NetworkView view;
    CHECK(view.take(std::vector<std::byte>(64)).interrupted);  // lengths of zero
}
