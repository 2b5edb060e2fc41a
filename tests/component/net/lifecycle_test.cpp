// Listening, and both phases of the end.
#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/wire.hpp"

#include <catch2/catch.hpp>

#include <future>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;

TEST_CASE("an address in use is a fault that names it") {
    ServerFixture server;
    const auto port = server.listen_tcp();
    const auto again = server.listen(net::TcpEndpoint{"127.0.0.1", port});
    REQUIRE_FALSE(again);
    CHECK(again.error().code == base::Errc::io_error);
    CHECK(again.error().detail == "cannot listen on 127.0.0.1:" + std::to_string(port) + ": Address already in use");
    CHECK_FALSE(server.listen(net::TcpEndpoint{"192.0.2.1", 0}));  // not an address of this machine
}

TEST_CASE("all addresses include the loopback of version 4") {
    ServerFixture server;
    const auto all = server.listen(*net::parse_tcp_endpoint(":0"));
    REQUIRE(all);
    auto wire = Wire::tcp(net::parse_tcp_endpoint((*all)->address())->port);
    REQUIRE(wire.send(get("/x")));
    CHECK(status_of(wire.response()) == 200);
}

TEST_CASE("a shutdown closes idle connections at once and finishes the request at hand") {
    ServerFixture server;
    const auto port = server.listen_tcp();
    auto idle = Wire::tcp(port);
    REQUIRE(idle.send(get("/x")));
    REQUIRE(status_of(idle.response()) == 200);
    auto untouched = Wire::tcp(port);
    auto busy = Wire::tcp(port);
    REQUIRE(busy.send(get("/slow") + get("/never")));
    REQUIRE(eventually([&] { return server.slow_waiting == 1; }));

    auto ended = std::async(std::launch::async, [&] { server.shut_down(60s); });
    CHECK(idle.ended());
    CHECK(untouched.ended());
    CHECK(eventually([&] { return server.connections() == 1; }));
    CHECK_THROWS(Wire::tcp(port));
    server.release = true;
    const auto response = busy.response();
    CHECK(body_of(response) == "/slow");
    CHECK(header_of(response, "Connection") == "close");
    CHECK(busy.ended());
    ended.get();
    CHECK(server.connections() == 0);
    CHECK(server.handled == 2);  // "/never" was not begun
    CHECK_FALSE(server.listen(net::TcpEndpoint{"127.0.0.1", 0}));
}

TEST_CASE("what is left after the grace is cut, the handler included") {
    ServerFixture server;
    const auto port = server.listen_tcp();
    auto busy = Wire::tcp(port);
    auto half = Wire::tcp(port);
    REQUIRE(busy.send(get("/slow")));
    REQUIRE(half.send("GET / HT"));
    REQUIRE(eventually([&] { return server.slow_waiting == 1; }));
    server.shut_down(50ms);
    CHECK(server.connections() == 0);
    CHECK(busy.ended());
    CHECK(half.ended());
}

TEST_CASE("TLS connections end with a shutdown too, whatever state they are in") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    auto silent = Wire::tcp(port);  // has not even begun the handshake
    auto idle = Wire::tls(port, certificates().client("alice"));
    REQUIRE(idle.shake());
    REQUIRE(idle.send(get("/x")));
    REQUIRE(status_of(idle.response()) == 200);
    REQUIRE(eventually([&] { return server.connections() == 2; }));
    server.shut_down(30s);
    CHECK(server.connections() == 0);
    CHECK(idle.ended());
    CHECK(silent.ended());
}

TEST_CASE("no descriptor outlives a server") {
    static_cast<void>(certificates());
    const auto before = open_descriptors();
    {
        ServerFixture server;
        const auto port = server.listen_tcp();
        const auto tls_port = server.listen_tcp(certificates().server());
        const auto path = certificates().folder.path("leak.sock");
        REQUIRE(server.listen(net::UnixEndpoint{.path = path, .group = {}}));
        auto plain = Wire::tcp(port);
        auto local = Wire::unix_socket(path);
        auto secure = Wire::tls(tls_port, certificates().client("alice"));
        REQUIRE(secure.shake());
        for (auto* wire : {&plain, &local, &secure}) {
            REQUIRE(wire->send(get("/x")));
            CHECK(status_of(wire->response()) == 200);
        }
        auto stranger = Wire::tls(tls_port, certificates().client("stranger"));
        static_cast<void>(stranger.shake());
        static_cast<void>(stranger.rest());
    }
    CHECK(open_descriptors() == before);
}

TEST_CASE("one listener closes alone: its address is free at once, the request at hand is finished, others go on") {
    ServerFixture server;
    const auto other = server.listen_tcp();
    const auto listener = server.listen(net::TcpEndpoint{"127.0.0.1", 0}).value();
    const auto endpoint = net::parse_tcp_endpoint(listener->address()).value();
    auto idle = Wire::tcp(endpoint.port);
    REQUIRE(idle.send(get("/x")));
    REQUIRE(status_of(idle.response()) == 200);
    auto busy = Wire::tcp(endpoint.port);
    REQUIRE(busy.send(get("/slow")));
    REQUIRE(eventually([&] { return server.slow_waiting == 1; }));

    server.on_loop([&] {
        listener->close(60s);
        listener->close(0ms);  // the second word is none
    });
    CHECK(idle.ended());
    CHECK_THROWS(Wire::tcp(endpoint.port));
    const auto again = server.listen(endpoint);
    CHECK(again);
    server.release = true;
    const auto response = busy.response();
    CHECK(body_of(response) == "/slow");
    CHECK(header_of(response, "Connection") == "close");
    CHECK(busy.ended());

    for (const auto port : {other, endpoint.port}) {
        auto wire = Wire::tcp(port);
        REQUIRE(wire.send(get("/x")));
        CHECK(status_of(wire.response()) == 200);
    }
}

TEST_CASE("what a closed listener still has after its grace is cut") {
    ServerFixture server;
    const auto listener = server.listen(net::TcpEndpoint{"127.0.0.1", 0}).value();
    auto busy = Wire::tcp(net::parse_tcp_endpoint(listener->address()).value().port);
    REQUIRE(busy.send(get("/slow")));
    REQUIRE(eventually([&] { return server.slow_waiting == 1; }));
    server.on_loop([&] { listener->close(20ms); });
    CHECK(busy.ended());
    CHECK(eventually([&] { return server.connections() == 0; }));
}
