#include "virt/host_objects.hpp"

#include <catch2/catch.hpp>
#include <pugixml.hpp>

#include <string>

using namespace ghost;
using virt::Claim;
using virt::Subnet;

namespace {

const char* const routes =
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
    "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n"
    "eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
    "wg0\t007AA8C0\t00000000\t0001\t0\t0\t0\t00FEFFFF\t0\t0\t0\n"
    "broken line\n";

constexpr std::uint32_t ip(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
    return (a << 24U) | (b << 16U) | (c << 8U) | d;
}

}  // namespace

TEST_CASE("the kernel's routes claim their subnets, routes to everything claim none") {
    const auto claims = virt::route_claims(routes);
    REQUIRE(claims.size() == 2);
    CHECK(claims[0].subnet.text() == "192.168.1.0/24");
    CHECK(claims[0].by == "a route on eth0");
    CHECK(claims[1].subnet.text() == "192.168.122.0/23");
    CHECK(claims[1].by == "a route on wg0");
    CHECK(virt::route_claims("").empty());
}

TEST_CASE("a network claims each of its IPv4 ranges") {
    const auto claims = virt::network_claims(R"(<network><name>isolated</name>
        <ip address='10.1.2.3' netmask='255.255.0.0'/><ip family='ipv6' address='fd00::1' prefix='64'/>
        <ip family='ipv4' address='192.168.5.1' prefix='24'/><ip address='nonsense' prefix='24'/>
        <ip address='1.2.3.4'/></network>)");
    REQUIRE(claims.size() == 2);
    CHECK(claims[0].subnet.text() == "10.1.0.0/16");
    CHECK(claims[0].by == "network isolated");
    CHECK(claims[1].subnet.text() == "192.168.5.0/24");
    CHECK(virt::network_claims("<domain/>").empty());
}

TEST_CASE("subnets overlap when one holds the other") {
    const Subnet narrow{ip(192, 168, 122, 0), 24};
    CHECK(narrow.overlaps({ip(192, 168, 0, 0), 16}));
    CHECK(narrow.overlaps({ip(192, 168, 122, 8), 32}));
    CHECK(narrow.overlaps(narrow));
    CHECK_FALSE(narrow.overlaps({ip(192, 168, 123, 0), 24}));
}

TEST_CASE("the default network moves to the next free range") {
    const auto candidates = virt::default_subnets();
    REQUIRE(candidates.front().text() == "192.168.122.0/24");
    REQUIRE(candidates.back().text() == "192.168.139.0/24");
    CHECK(virt::first_free(candidates, {})->text() == "192.168.122.0/24");
    CHECK(virt::first_free(candidates, virt::route_claims(routes))->text() == "192.168.124.0/24");
    CHECK_FALSE(virt::first_free(candidates, {Claim{{ip(192, 168, 0, 0), 16}, "a route on vpn0"}}).has_value());
}

TEST_CASE("the network made is NAT with DHCP for the whole range") {
    pugi::xml_document document;
    REQUIRE(document.load_string(virt::nat_network_xml("default", {ip(192, 168, 124, 0), 24}).c_str()));
    const auto network = document.document_element();
    CHECK(std::string{network.child("name").text().get()} == "default");
    CHECK(std::string{network.child("forward").attribute("mode").value()} == "nat");
    CHECK(std::string{network.child("ip").attribute("address").value()} == "192.168.124.1");
    CHECK(std::string{network.child("ip").attribute("netmask").value()} == "255.255.255.0");
    const auto range = network.child("ip").child("dhcp").child("range");
    CHECK(std::string{range.attribute("start").value()} == "192.168.124.2");
    CHECK(std::string{range.attribute("end").value()} == "192.168.124.254");
    CHECK_FALSE(network.child("bridge").attribute("name"));
}

TEST_CASE("a pool's path is escaped") {
    pugi::xml_document document;
    REQUIRE(document.load_string(virt::directory_pool_xml("ghost", "/a<b>&'\"/d").c_str()));
    CHECK(std::string{document.document_element().child("target").child("path").text().get()} == "/a<b>&'\"/d");
    CHECK(std::string{document.document_element().attribute("type").value()} == "dir");
}
