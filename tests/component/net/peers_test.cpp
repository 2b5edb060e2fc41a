// Requests and peers of every manner, on a plain loopback connection.
#include "net/text.hpp"
#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/wire.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <iterator>
#include <vector>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;

namespace {

std::ptrdiff_t running_threads() {
    const std::filesystem::directory_iterator all{"/proc/self/task"};
    return std::distance(begin(all), end(all));
}

}  // namespace

TEST_CASE("a connection carries request after request") {
    ServerFixture server;
    auto wire = Wire::tcp(server.listen_tcp());
    for (int i = 0; i < 3; ++i) {
        REQUIRE(wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
        const auto response = wire.response();
        CHECK(status_of(response) == 200);
        CHECK(body_of(response) == "hi");
        CHECK(header_of(response, "Connection").empty());
        CHECK_FALSE(header_of(response, "Date").empty());
    }
}

TEST_CASE("pipelined requests are answered in order") {
    ServerFixture server;
    auto wire = Wire::tcp(server.listen_tcp());
    std::string all;
    for (int i = 0; i < 50; ++i) all += get("/" + std::to_string(i));
    REQUIRE(wire.send(all));
    for (int i = 0; i < 50; ++i) CHECK(body_of(wire.response()) == "/" + std::to_string(i));
}

TEST_CASE("the connection ends when either side says close, and with HTTP/1.0") {
    ServerFixture server;
    const auto port = server.listen_tcp();
    for (const auto& request :
         {get("/x", "Connection: close\r\n"), get("/close"), std::string{"GET /x HTTP/1.0\r\n\r\n"}}) {
        auto wire = Wire::tcp(port);
        REQUIRE(wire.send(request));
        const auto response = wire.response();
        CHECK(status_of(response) == 200);
        CHECK(header_of(response, "Connection") == "close");
        CHECK(wire.ended());
    }
    auto wire = Wire::tcp(port);
    REQUIRE(wire.send("GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    CHECK(header_of(wire.response(), "Connection") == "keep-alive");
    REQUIRE(wire.send("GET /y HTTP/1.0\r\n\r\n"));
    CHECK(body_of(wire.response()) == "/y");
}

TEST_CASE("HEAD gets the length of the body and not the body") {
    ServerFixture server;
    auto wire = Wire::tcp(server.listen_tcp());
    REQUIRE(wire.send("HEAD /12345 HTTP/1.1\r\nHost: a\r\n\r\n" + get("/next")));
    const auto response = wire.response(true);
    CHECK(header_of(response, "Content-Length") == "6");
    CHECK(body_of(wire.response()) == "/next");
}

TEST_CASE("a client that waits for 100 Continue is told to go on") {
    ServerFixture server;
    auto wire = Wire::tcp(server.listen_tcp());
    REQUIRE(wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
    CHECK(status_of(wire.response()) == 100);
    REQUIRE(wire.send("ok"));
    CHECK(body_of(wire.response()) == "ok");
}

TEST_CASE("request ids and trace contexts are taken when valid, made otherwise, and echoed") {
    ServerFixture server;
    auto wire = Wire::tcp(server.listen_tcp());
    const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    REQUIRE(wire.send(get("/ids", "X-Request-Id: mine.1\r\ntraceparent: " + trace + "\r\n")));
    const auto named = wire.response();
    CHECK(body_of(named) == "mine.1 " + trace);
    CHECK(header_of(named, "X-Request-Id") == "mine.1");
    CHECK(header_of(named, "traceparent") == trace);

    REQUIRE(wire.send(get("/ids", "X-Request-Id: no good\r\ntraceparent: nor this\r\n")));
    const auto made = wire.response();
    CHECK(header_of(made, "X-Request-Id").starts_with("made-"));
    const auto made_trace = header_of(made, "traceparent");
    CHECK(net::is_traceparent(made_trace));
    CHECK(body_of(made) == header_of(made, "X-Request-Id") + " " + made_trace);

    REQUIRE(wire.send(get("/ids")));
    const auto other_trace = header_of(wire.response(), "traceparent");
    CHECK(net::is_traceparent(other_trace));
    CHECK(other_trace != made_trace);
}

TEST_CASE("a handler's exception is a 500 that tells nothing, and the connection goes on") {
    ServerFixture server;
    auto wire = Wire::tcp(server.listen_tcp());
    REQUIRE(wire.send(get("/throw", "X-Request-Id: r7\r\n") + get("/next")));
    const auto response = wire.response();
    CHECK(status_of(response) == 500);
    CHECK(header_of(response, "X-Request-Id") == "r7");
    CHECK(header_of(response, "Content-Type") == "application/problem+json");
    CHECK(response.find("secret") == std::string::npos);
    CHECK(response.find("\"code\":\"internal\"") != std::string::npos);
    CHECK(body_of(wire.response()) == "/next");
}

TEST_CASE("malformed HTTP gets a problem and the end of the connection") {
    ServerFixture server;
    const auto port = server.listen_tcp();
    for (const std::string request :
         {"\x16\x03\x01 hello", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n",
          "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
          "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"}) {
        CAPTURE(request);
        auto wire = Wire::tcp(port);
        REQUIRE(wire.send(request));
        const auto response = wire.response();
        CHECK(status_of(response) == 400);
        CHECK(header_of(response, "Connection") == "close");
        CHECK_FALSE(header_of(response, "X-Request-Id").empty());
        CHECK(header_of(response, "Cache-Control") == "no-store");
        CHECK(wire.ended());
    }
    CHECK(server.handled == 0);
}

TEST_CASE("a peer that half-closes after its request still gets the answer") {
    ServerFixture server;
    auto wire = Wire::tcp(server.listen_tcp());
    REQUIRE(wire.send(get("/large")));
    wire.end_sending();
    CHECK(body_of(wire.response()).size() == 8 * 1024 * 1024);
    CHECK(wire.ended());
}

TEST_CASE("a slow peer, byte by byte, is served within the limits") {
    ServerFixture server;
    auto wire = Wire::tcp(server.listen_tcp());
    for (const char c :
         std::string{"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"})
        REQUIRE(wire.send({&c, 1}));
    CHECK(body_of(wire.response()) == "ab");
}

TEST_CASE("peers that hang up in the middle leave nothing behind") {
    ServerFixture server;
    const auto port = server.listen_tcp();
    const auto before = open_descriptors();
    for (const std::string part :
         {"", "GET", "GET / HTTP/1.1\r\nHost:", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"}) {
        for (const bool hard : {false, true}) {
            auto wire = Wire::tcp(port);
            REQUIRE(wire.send(part));
            hard ? wire.hang_up_hard() : wire.hang_up();
        }
    }
    for (const bool hard : {false, true}) {  // in the middle of a response
        auto wire = Wire::tcp(port);
        REQUIRE(wire.send(get("/large") + get("/large")));
        hard ? wire.hang_up_hard() : wire.hang_up();
    }
    CHECK(eventually([&] { return server.connections() == 0; }));
    CHECK(eventually([&] { return open_descriptors() == before; }));
    auto wire = Wire::tcp(port);
    REQUIRE(wire.send(get("/alive")));
    CHECK(body_of(wire.response()) == "/alive");
}

TEST_CASE("500 connections at once are served, by no more threads") {
    ServerFixture server;
    const auto port = server.listen_tcp();
    const auto threads = running_threads();
    std::vector<Wire> wires;
    wires.reserve(500);
    for (int i = 0; i < 500; ++i) wires.push_back(Wire::tcp(port));
    for (auto& wire : wires) REQUIRE(wire.send(get("/x")));
    int good = 0;
    for (auto& wire : wires) good += body_of(wire.response()) == "/x" ? 1 : 0;
    CHECK(good == 500);
    CHECK(server.connections() == 500);
    CHECK(running_threads() == threads);
    wires.clear();
    CHECK(eventually([&] { return server.connections() == 0; }));
}
