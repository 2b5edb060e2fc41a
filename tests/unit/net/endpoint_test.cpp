#include "net/server.hpp"

#include <catch2/catch.hpp>

using namespace ghost;

TEST_CASE("an endpoint is read from its usual forms") {
    struct Case {
        const char* text;
        const char* address;
        unsigned port;
    };
    for (const auto& c : {Case{"127.0.0.1:9092", "127.0.0.1", 9092}, Case{"[::1]:80", "::1", 80}, Case{":0", "::", 0},
                          Case{"localhost:1", "127.0.0.1", 1}, Case{"0.0.0.0:65535", "0.0.0.0", 65535}}) {
        CAPTURE(c.text);
        const auto endpoint = net::parse_tcp_endpoint(c.text);
        REQUIRE(endpoint);
        CHECK(endpoint->address == c.address);
        CHECK(endpoint->port == c.port);
    }
}

TEST_CASE("what is no endpoint is a fault that says what is allowed") {
    for (const auto* text : {"", "9092", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:80",
                             "[127.0.0.1]:80", "example.org:80", "127.0.0.1:80x", "[]:1", "[:1", "127.1:80 "}) {
        CAPTURE(text);
        const auto endpoint = net::parse_tcp_endpoint(text);
        REQUIRE_FALSE(endpoint);
        CHECK(endpoint.error().code == base::Errc::validation_failed);
        CHECK(endpoint.error().detail.find("127.0.0.1:9092") != std::string::npos);
    }
}

TEST_CASE("loopback is known in every form, and all addresses are not loopback") {
    CHECK(net::is_loopback({"127.0.0.1", 1}));
    CHECK(net::is_loopback({"127.8.9.1", 1}));
    CHECK(net::is_loopback({"::1", 1}));
    CHECK(net::is_loopback({"::ffff:127.0.0.1", 1}));
    CHECK_FALSE(net::is_loopback({"0.0.0.0", 1}));
    CHECK_FALSE(net::is_loopback({"::", 1}));
    CHECK_FALSE(net::is_loopback({"192.0.2.1", 1}));
    CHECK_FALSE(net::is_loopback({"::ffff:192.0.2.1", 1}));
    CHECK_FALSE(net::is_loopback({"nonsense", 1}));
}

TEST_CASE("an endpoint's text can be read again") {
    CHECK(net::to_string(net::TcpEndpoint{"::1", 80}) == "[::1]:80");
    CHECK(net::to_string(net::TcpEndpoint{"127.0.0.1", 80}) == "127.0.0.1:80");
    CHECK(net::to_string(net::UnixEndpoint{.path = "/run/x.sock", .group = {}}) == "/run/x.sock");
}
