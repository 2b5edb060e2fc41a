// How WebSockets begin, and how they don't.
#include "tests/component/net/scripted_server.hpp"
#include "tests/component/net/websocket_scene.hpp"

#include <catch2/catch.hpp>

#include <vector>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;
namespace asio = boost::asio;

TEST_CASE("the answer to a handshake is RFC 6455's, with our headers and the subprotocol") {
    Ends ends;
    auto wire = Wire::tcp(ends.port);
    REQUIRE(wire.send(handshake("/echo",
                                "Sec-WebSocket-Protocol: other, ghost.stream.v1\r\nX-Request-Id: mine\r\n"
                                "Sec-WebSocket-Extensions: permessage-deflate\r\n")));
    const auto answer = wire.response();
    CHECK(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    CHECK(header_of(answer, "Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    CHECK(header_of(answer, "Upgrade") == "websocket");
    CHECK(header_of(answer, "Connection") == "upgrade");
    CHECK(header_of(answer, "Sec-WebSocket-Protocol") == our_protocol);
    CHECK(header_of(answer, "Sec-WebSocket-Extensions").empty());
    CHECK(header_of(answer, "X-Request-Id") == "mine");
    CHECK_FALSE(header_of(answer, "traceparent").empty());
    CHECK(header_of(answer, "X-Extra") == "a  b");
    CHECK(header_of(answer, "Server") == "ghost-agent");

    auto plain = Wire::tcp(ends.port);
    REQUIRE(plain.send(handshake("/echo", "Sec-WebSocket-Protocol: other\r\n")));
    CHECK(header_of(plain.response(), "Sec-WebSocket-Protocol").empty());
}

TEST_CASE("no subprotocol is offered, none is agreed on") {
    Ends ends;
    auto request = to("/echo");
    request.protocol.clear();
    with(ends, ends.peers()[0], request, [](net::WebSocket& end) -> asio::awaitable<void> {
        CHECK(end.protocol().empty());
        co_return;
    });
    CHECK(ends.has_noted("broken"));  // it went without a word
}

TEST_CASE("an identity has 256 WebSockets, which take none of its other places") {
    auto limits = quick_limits();
    limits.in_flight_per_identity = 1;
    limits.streams_per_identity = 0;
    Ends ends{limits};
    std::vector<Wire> wires;
    for (int i = 0; i < 300; ++i) {
        auto& wire = wires.emplace_back(Wire::unix_socket(ends.path));
        REQUIRE(wire.send(handshake("/echo")));
        const auto answer = wire.response();
        REQUIRE(status_of(answer) == (i < 256 ? 101 : 429));
        if (i < 256) continue;
        CHECK(answer.find("\"code\":\"rate_limited\"") != std::string::npos);
        CHECK(header_of(answer, "Retry-After") == "1");
    }
    auto stranger = Wire::tcp(ends.port);
    REQUIRE(stranger.send(handshake("/echo")));
    CHECK(status_of(stranger.response()) == 101);
    for (int i = 0; i < 256; i += 50) {
        auto& wire = wires[static_cast<std::size_t>(i)];
        REQUIRE(wire.send(frame(binary_message, "x")));
        CHECK(wire.take(3) == "\x82\x01x");
    }
    while (wires.size() > 240) wires.pop_back();
    CHECK(eventually([&] {
        auto next = Wire::unix_socket(ends.path);
        return next.send(handshake("/echo")) && status_of(next.response()) == 101;
    }));
}

TEST_CASE("who asks wrongly gets a problem, and may ask again") {
    Ends ends;
    auto wire = Wire::tcp(ends.port);
    REQUIRE(wire.send(get("/echo")));
    CHECK(status_of(wire.response()) == 426);
    REQUIRE(
        wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Content-Length: 0\r\n\r\n"));
    CHECK(status_of(wire.response()) == 426);
    REQUIRE(wire.send(get("/echo", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\n")));
    CHECK(status_of(wire.response()) == 422);
    REQUIRE(wire.send(handshake("/forbidden")));
    CHECK(status_of(wire.response()) == 403);
    REQUIRE(wire.send(handshake("/misused")));
    CHECK(status_of(wire.response()) == 200);
    REQUIRE(wire.send(handshake("/no-upgrade")));
    CHECK(status_of(wire.response()) == 500);
    REQUIRE(wire.send(handshake("/echo")));
    CHECK(status_of(wire.response()) == 101);

    auto old = Wire::tcp(ends.port);
    REQUIRE(old.send(handshake("/echo", "", "HTTP/1.0")));
    CHECK(status_of(old.response()) == 426);
    CHECK(old.ended());
    auto hasty = Wire::tcp(ends.port);
    REQUIRE(hasty.send(handshake("/echo") + frame(binary_message, "x")));
    CHECK(status_of(hasty.response()) == 400);
    CHECK(hasty.ended());
}

TEST_CASE("an answer that is no yes reaches who asked") {
    Ends ends;
    const auto peer = ends.peers()[static_cast<std::size_t>(GENERATE(0, 1, 2))];
    const auto refused = ends.server.await(net::open_websocket(peer, to("/forbidden")));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().error.code == base::Errc::source_unavailable);
    REQUIRE(refused.error().answer);
    CHECK(refused.error().answer->status == 403);
    CHECK(refused.error().answer->headers.find("Content-Type") == "application/problem+json");
    CHECK(refused.error().answer->body.find("not you") != std::string::npos);
    const auto wordy = ends.server.await(net::open_websocket(peer, to("/wordy")));
    REQUIRE_FALSE(wordy);
    CHECK(wordy.error().answer->body == std::string(64 * 1024, 'w'));
}

TEST_CASE("a server that speaks something else, or nothing, is a fault") {
    Ends ends;
    const auto asked = [&](const std::string& script, std::chrono::milliseconds timeout = 30s) {
        ScriptedServer server{{script}};
        auto request = to("/x");
        request.timeout = timeout;
        auto opened = ends.server.await(net::open_websocket(server.peer(), request));
        REQUIRE_FALSE(opened);
        CHECK_FALSE(opened.error().answer);
        return opened.error().error;
    };
    CHECK(asked("").code == base::Errc::source_unavailable);
    CHECK(asked("SSH-2.0-OpenSSH\r\n").code == base::Errc::source_unavailable);
    CHECK(asked("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
              .detail.find("speaks no WebSocket") != std::string::npos);

    auto late = to("/slow");
    late.timeout = 100ms;
    const net::Peer nobody = net::UnixPeer{ends.folder.path("nobody")};
    const auto none = ends.server.await(net::open_websocket(nobody, late));
    REQUIRE_FALSE(none);
    CHECK(none.error().error.code == base::Errc::source_unavailable);
    for (const std::string bad : {"no-slash", "/with space", "/new\nline"}) {
        const auto unsent = ends.server.await(net::open_websocket(ends.peers()[0], to(bad)));
        REQUIRE_FALSE(unsent);
        CHECK(unsent.error().error.code == base::Errc::validation_failed);
    }
}

TEST_CASE("a server that never answers a handshake is given up at the deadline") {
    Ends ends;
    ends.server.on_loop([&] {
        ends.server.handler = [](net::Request) -> asio::awaitable<net::Response> {
            co_await pause(1h);
            co_return net::Response{};
        };
    });
    auto request = to("/never");
    request.timeout = 100ms;
    const auto late = ends.server.await(net::open_websocket(ends.peers()[2], request));
    REQUIRE_FALSE(late);
    CHECK(late.error().error.code == base::Errc::deadline_exceeded);
}
