#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/wire.hpp"

#include <catch2/catch.hpp>
#include <openssl/ssl.h>

#include <vector>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;

namespace {

// The body of /who; empty when there was none to be had.
std::string who(std::uint16_t port, const net::TlsContext& context) {
    auto wire = Wire::tls(port, context);
    if (!wire.shake() || !wire.send(get("/who"))) return {};
    return body_of(wire.response());
}

net::TlsContext limited_to(int version) {
    auto context = certificates().client("alice");
    SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context->native_handle(), version);
    SSL_CTX_set_security_level(context->native_handle(), 0);
    SSL_CTX_set_cipher_list(context->native_handle(), "ALL");
    return context;
}

}  // namespace

TEST_CASE("a certificate of the CA is an admin by its common name, or by its whole subject") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    CHECK(who(port, certificates().client("alice")) == "certificate:alice admin");
    CHECK(who(port, certificates().client("nameless")) == "certificate:O=Ghost admin");
    CHECK(who(port, limited_to(TLS1_2_VERSION)) == "certificate:alice admin");
}

TEST_CASE("without a certificate a peer is anonymous") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    CHECK(who(port, certificates().client("")) == "anonymous");
}

TEST_CASE("a certificate of another CA or an expired one ends the handshake") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    for (const auto* name : {"stranger", "expired"}) {
        CAPTURE(name);
        CHECK(who(port, certificates().client(name)).empty());
    }
    CHECK(server.handled == 0);
    CHECK(eventually([&] { return server.connections() == 0; }));
}

TEST_CASE("a certificate that the CA's revocation list names ends the handshake, others of that CA go on") {
    auto& all = certificates();
    const auto revoked = all.ca.issue({.common_name = "mallory"});
    static_cast<void>(all.files("mallory", revoked));
    const auto with_ca_file = [&all](const std::string& pem) {
        return net::make_server_tls(
                   {all.folder.path("server.pem"), all.folder.path("server.key"), all.folder.write("ca-crl.pem", pem)})
            .value();
    };
    ServerFixture server;
    const auto before = server.listen_tcp(with_ca_file(all.ca.certificate()));
    const auto after = server.listen_tcp(with_ca_file(all.ca.certificate() + all.ca.revoke({revoked})));
    const auto overdue = server.listen_tcp(with_ca_file(all.ca.certificate() + all.ca.revoke({}, -3600)));
    CHECK(who(before, all.client("mallory")) == "certificate:mallory admin");
    CHECK(who(after, all.client("mallory")).empty());
    CHECK(who(after, all.client("alice")) == "certificate:alice admin");
    CHECK(who(after, all.client("")) == "anonymous");
    CHECK(who(overdue, all.client("alice")).empty());
}

TEST_CASE("versions before TLS 1.2 are not spoken") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    CHECK(who(port, limited_to(TLS1_1_VERSION)).empty());
    CHECK(who(port, limited_to(TLS1_VERSION)).empty());
    CHECK(server.handled == 0);
}

TEST_CASE("a renegotiation is refused") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    auto context = limited_to(TLS1_2_VERSION);
    SSL_CTX_clear_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
    auto wire = Wire::tls(port, context);
    REQUIRE(wire.shake());
    CHECK_FALSE(wire.renegotiate());
}

TEST_CASE("plain HTTP on a TLS port just ends") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    auto wire = Wire::tcp(port);
    REQUIRE(wire.send(get("/x")));
    CHECK(wire.rest().find("HTTP/") == std::string::npos);
    CHECK(server.handled == 0);
}

TEST_CASE("a peer silent in the handshake is cut off while others are served") {
    auto limits = small_limits();
    limits.handshake = 300ms;
    ServerFixture server{limits};
    const auto port = server.listen_tcp(certificates().server());
    auto silent = Wire::tcp(port);
    auto halting = Wire::tcp(port);
    REQUIRE(halting.send("\x16\x03\x01"));
    CHECK(who(port, certificates().client("alice")) == "certificate:alice admin");
    CHECK(silent.ended());
    CHECK(halting.ended());
}

TEST_CASE("limits hold within TLS: a slow header is 408, a silent connection just ends") {
    auto limits = small_limits();
    limits.header = 200ms;
    limits.idle = 300ms;
    ServerFixture server{limits};
    const auto port = server.listen_tcp(certificates().server());
    auto slow = Wire::tls(port, certificates().client("alice"));
    REQUIRE(slow.shake());
    REQUIRE(slow.send("GET / HTTP/1.1\r\n"));
    CHECK(status_of(slow.response()) == 408);
    CHECK(slow.ended());
    auto silent = Wire::tls(port, certificates().client("alice"));
    REQUIRE(silent.shake());
    CHECK(silent.ended());
}

TEST_CASE("over TLS, too, a slow, a half-closing and a large-reading peer are served") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    auto slow = Wire::tls(port, certificates().client("alice"));
    REQUIRE(slow.shake());
    for (const char c : get("/slowly")) REQUIRE(slow.send({&c, 1}));
    CHECK(body_of(slow.response()) == "/slowly");
    REQUIRE(slow.send(get("/large")));
    slow.end_sending();
    CHECK(body_of(slow.response()).size() == 8 * 1024 * 1024);
}

TEST_CASE("a peer that hangs up within TLS leaves nothing behind") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    for (const auto* part : {"", "GET / HT", "GET /large HTTP/1.1\r\nHost: a\r\n\r\n"}) {
        for (const bool hard : {false, true}) {
            auto wire = Wire::tls(port, certificates().client("alice"));
            REQUIRE(wire.shake());
            REQUIRE(wire.send(part));
            hard ? wire.hang_up_hard() : wire.hang_up();
        }
    }
    CHECK(eventually([&] { return server.connections() == 0; }));
}

TEST_CASE("new certificates serve new connections while old ones go on") {
    ServerFixture server;
    const auto listener = server.listen(net::TcpEndpoint{"127.0.0.1", 0}, certificates().server()).value();
    const auto port = net::parse_tcp_endpoint(listener->address())->port;
    auto old = Wire::tls(port, certificates().client("alice"));
    REQUIRE(old.shake());
    auto& all = certificates();
    const auto renewed =
        all.files("renewed", all.ca.issue({.common_name = "renewed", .alternative_names = "DNS:renewed.example"}));
    server.on_loop([&] {
        listener->use_tls(net::make_server_tls(renewed).value());
        return true;
    });
    auto fresh = Wire::tls(port, certificates().client("alice"));
    REQUIRE(fresh.shake());
    CHECK(fresh.peer_common_name() == "renewed");
    REQUIRE(old.send(get("/x")));
    CHECK(status_of(old.response()) == 200);
}

TEST_CASE("the identity's limit of requests in flight is its own") {
    auto limits = small_limits();
    limits.in_flight_per_identity = 1;
    ServerFixture server{limits};
    const auto port = server.listen_tcp(certificates().server());
    auto alice = Wire::tls(port, certificates().client("alice"));
    REQUIRE(alice.shake());
    REQUIRE(alice.send(get("/slow")));
    REQUIRE(eventually([&] { return server.slow_waiting == 1; }));
    CHECK(who(port, certificates().client("")) == "anonymous");
    CHECK(who(port, certificates().client("alice")).find("rate_limited") != std::string::npos);
    server.release = true;
    CHECK(status_of(alice.response()) == 200);
}
