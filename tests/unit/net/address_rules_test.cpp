#include "net/address_rules.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using boost::asio::ip::make_address;

TEST_CASE("public addresses are told from all that lead elsewhere") {
    for (const auto* text :
         {"1.1.1.1",       "9.255.255.255",   "11.0.0.0",         "100.63.255.255",  "100.128.0.0", "126.255.255.255",
          "128.0.0.0",     "169.253.255.255", "172.15.255.255",   "172.32.0.0",      "192.0.1.0",   "192.0.3.0",
          "192.88.98.255", "192.167.255.255", "192.169.0.0",      "198.17.255.255",  "198.20.0.0",  "198.51.101.0",
          "203.0.114.0",   "223.255.255.255", "2a00:1450::1",     "2606:4700::1111", "2001:200::1", "2001:4860::8888",
          "3ffe::1",       "::ffff:1.1.1.1",  "64:ff9b::1.1.1.1", "2002:101:101::1"}) {
        CAPTURE(text);
        CHECK(net::is_public(make_address(text)));
    }
    for (const auto* text :
         {"0.0.0.0",       "0.1.2.3",         "10.0.0.1",        "10.255.255.255", "100.64.0.0",     "100.127.255.255",
          "127.0.0.1",     "127.255.255.255", "169.254.169.254", "172.16.0.0",     "172.31.255.255", "192.0.0.8",
          "192.0.2.1",     "192.88.99.1",     "192.168.1.1",     "198.18.0.0",     "198.19.255.255", "198.51.100.1",
          "203.0.113.255", "224.0.0.1",       "239.255.255.255", "240.0.0.1",      "255.255.255.255"}) {
        CAPTURE(text);
        CHECK_FALSE(net::is_public(make_address(text)));
    }
    for (const auto* text : {"::",
                             "::1",
                             "::ffff:10.0.0.1",
                             "::ffff:127.0.0.1",
                             "::127.0.0.1",
                             "64:ff9b::10.0.0.1",
                             "64:ff9b:1::1.1.1.1",
                             "100::1",
                             "2001::1",
                             "2001:2::1",
                             "2001:10::1",
                             "2001:20::1",
                             "2001:db8::1",
                             "2002:7f00:1::",
                             "2002:a00:1::1",
                             "3fff::1",
                             "3fff:fff:ffff::1",
                             "4000::1",
                             "5f00::1",
                             "fc00::1",
                             "fdff::1",
                             "fe80::1",
                             "fe80::1%1",
                             "fec0::1",
                             "ff02::1"}) {
        CAPTURE(text);
        CHECK_FALSE(net::is_public(make_address(text)));
    }
}

TEST_CASE("a network contains what its prefix says") {
    const auto network = [](const char* text) { return net::parse_network(text).value(); };
    CHECK(net::contains(network("10.32.0.0/11"), make_address("10.63.1.2")));
    CHECK_FALSE(net::contains(network("10.32.0.0/11"), make_address("10.64.0.0")));
    CHECK(net::contains(network("0.0.0.0/0"), make_address("255.1.2.3")));
    CHECK_FALSE(net::contains(network("0.0.0.0/0"), make_address("::1")));
    CHECK(net::contains(network("fd00::/8"), make_address("fd12::1")));
    CHECK(net::contains(network("192.0.2.1"), make_address("192.0.2.1")));
    CHECK_FALSE(net::contains(network("192.0.2.1"), make_address("192.0.2.2")));
    for (const auto* text : {"", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x", "fd00::/129", "x/8"})
        CHECK_FALSE(net::parse_network(text));
}
