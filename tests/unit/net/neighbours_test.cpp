#include "net/neighbours.hpp"

#include "fakes/netlink_bytes.hpp"

#include <catch2/catch.hpp>

#include <linux/neighbour.h>

using namespace ghost;
namespace ip = boost::asio::ip;

namespace {

using std::string_view_literals::operator""sv;

constexpr auto card = "\x52\x54\x00\xab\xcd\x01"sv;

fakes::NetlinkBytes route(unsigned char type = RTN_UNICAST) {
    rtmsg body{};
    body.rtm_family = AF_INET;
    body.rtm_type = type;
    fakes::NetlinkBytes bytes;
    bytes.message(RTM_NEWROUTE, body).address(RTA_DST, "192.168.122.10").attribute(RTA_OIF, 7);
    return bytes;
}

fakes::NetlinkBytes neighbour(int state, const char* address, std::string_view link) {
    ndmsg body{};
    body.ndm_family = AF_INET;
    body.ndm_ifindex = 7;
    body.ndm_state = static_cast<std::uint16_t>(state);
    fakes::NetlinkBytes bytes;
    bytes.message(RTM_NEWNEIGH, body).address(NDA_DST, address).attribute(NDA_LLADDR, link);
    return bytes;
}

const ip::address guest = ip::make_address("192.168.122.10");

}  // namespace

TEST_CASE("a neighbour is who the kernel has heard answer for the address") {
    for (const int state : {NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE, NUD_PERMANENT})
        CHECK(net::link_address_in(neighbour(state, "192.168.122.10", card).bytes(), guest) == "52:54:00:ab:cd:01");
    for (const int state : {NUD_NONE, NUD_INCOMPLETE, NUD_FAILED, NUD_NOARP})
        CHECK_FALSE(net::link_address_in(neighbour(state, "192.168.122.10", card).bytes(), guest));
    CHECK_FALSE(net::link_address_in(neighbour(NUD_REACHABLE, "192.168.122.11", card).bytes(), guest));
    CHECK_FALSE(net::link_address_in(neighbour(NUD_REACHABLE, "192.168.122.10", card.substr(1)).bytes(), guest));
    CHECK_FALSE(net::link_address_in(neighbour(NUD_REACHABLE, "192.168.122.10", "").bytes(), guest));
    const auto six = ip::make_address("2001:db8::10");
    CHECK(net::link_address_in(neighbour(NUD_REACHABLE, "2001:db8::10", card).bytes(), six) == "52:54:00:ab:cd:01");
}

TEST_CASE("an address behind a gateway, or of this host, has no neighbour") {
    CHECK(net::direct_interface_in(route().bytes()) == 7);
    CHECK_FALSE(net::direct_interface_in(route(RTN_LOCAL).bytes()));
    CHECK_FALSE(net::direct_interface_in(route(RTN_UNREACHABLE).bytes()));
    CHECK_FALSE(net::direct_interface_in(route().address(RTA_GATEWAY, "192.0.2.1").bytes()));
}

TEST_CASE("a route tells whether the address is this host's own") {
    for (const unsigned char type : {RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST})
        CHECK(net::is_local_in(route(type).bytes()) == true);
    for (const unsigned char type : {RTN_UNICAST, RTN_UNREACHABLE, RTN_BLACKHOLE})
        CHECK(net::is_local_in(route(type).bytes()) == false);
    CHECK(net::is_own_address(ip::make_address("127.0.0.1")));
    CHECK(net::is_own_address(ip::make_address("127.5.5.5")));
    CHECK(net::is_own_address(ip::address_v6::loopback()));
    CHECK_FALSE(net::is_own_address(ip::make_address("203.0.113.77")));
}

TEST_CASE("answers that are cut off or none say nothing") {
    const auto way = route();
    const auto card_of = neighbour(NUD_REACHABLE, "192.168.122.10", card);
    for (std::size_t cut = 0; cut < way.bytes().size(); ++cut)
        CHECK_FALSE(net::direct_interface_in(way.bytes().first(cut)));
    CHECK_FALSE(net::is_local_in(way.bytes().first(sizeof(nlmsghdr))));
    for (std::size_t cut = 0; cut + 2 < card_of.bytes().size(); ++cut)
        CHECK_FALSE(net::link_address_in(card_of.bytes().first(cut), guest));
    fakes::NetlinkBytes fault;
    fault.message(NLMSG_ERROR, nlmsgerr{.error = -ENOENT, .msg = {}});
    CHECK_FALSE(net::direct_interface_in(fault.bytes()));
    CHECK_FALSE(net::is_local_in(fault.bytes()));
    CHECK_FALSE(net::link_address_in(fault.bytes(), guest));
    CHECK_FALSE(net::link_address_in(way.bytes(), guest));
}

TEST_CASE("an address that is this host's own has no neighbour") {
    CHECK_FALSE(net::link_address_of(ip::address_v4::loopback()));
    CHECK_FALSE(net::link_address_of(ip::address_v6::loopback()));
    CHECK_FALSE(net::link_address_of(ip::make_address("203.0.113.77")));  // nobody has it
}
