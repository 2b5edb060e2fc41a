#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/wire.hpp"

#include <catch2/catch.hpp>

#include <thread>
#include <vector>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;

namespace {

// A Unix socket's peers have an identity; those of plain TCP are strangers.
std::string listen_unix(ServerFixture& server, const fakes::ScratchFolder& folder) {
    auto path = folder.path("socket");
    REQUIRE(server.listen(net::UnixEndpoint{.path = path, .mode = 0600, .group = {}}));
    return path;
}

}  // namespace

TEST_CASE("a silent connection is closed without a word") {
    auto limits = small_limits();
    limits.idle = 100ms;
    ServerFixture server{limits};
    auto silent = Wire::tcp(server.listen_tcp());
    CHECK(silent.ended());
}

TEST_CASE("a connection idle after its request is closed without a word") {
    auto limits = small_limits();
    limits.idle = 100ms;
    ServerFixture server{limits};
    auto wire = Wire::tcp(server.listen_tcp());
    REQUIRE(wire.send(get("/x")));
    CHECK(status_of(wire.response()) == 200);
    CHECK(wire.ended());
}

TEST_CASE("headers that don't come to an end in time are 408") {
    auto limits = small_limits();
    limits.header = 100ms;
    ServerFixture server{limits};
    auto wire = Wire::tcp(server.listen_tcp());
    REQUIRE(wire.send("GET / HTTP/1.1\r\nHo"));
    const auto response = wire.response();
    CHECK(status_of(response) == 408);
    CHECK(header_of(response, "Connection") == "close");
    CHECK(wire.ended());
}

TEST_CASE("a body that doesn't come in time is 408") {
    auto limits = small_limits();
    limits.body = 100ms;
    ServerFixture server{limits};
    auto wire = Wire::tcp(server.listen_tcp());
    REQUIRE(wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"));
    CHECK(status_of(wire.response()) == 408);
    CHECK(wire.ended());
    CHECK(server.handled == 0);
}

TEST_CASE("a peer that doesn't read its answer is cut off") {
    auto limits = small_limits();
    limits.write = 200ms;
    ServerFixture server{limits};
    auto wire = Wire::tcp(server.listen_tcp());
    REQUIRE(wire.send(get("/large")));
    CHECK(eventually([&] { return server.handled == 1; }));
    CHECK(eventually([&] { return server.connections() == 0; }));
    CHECK(wire.rest().size() < 8 * 1024 * 1024);
}

TEST_CASE("headers too large are 431, and the peer that still sends gets to read it") {
    ServerFixture server;
    auto wire = Wire::tcp(server.listen_tcp());
    REQUIRE(wire.send(get("/x", "X: " + std::string(200'000, 'a') + "\r\n")));
    CHECK(status_of(wire.response()) == 431);
    CHECK(wire.ended());
}

TEST_CASE("a body too large is 413 before it is read, and the peer that still sends gets to read it") {
    ServerFixture server;
    const auto port = server.listen_tcp();
    auto announced = Wire::tcp(port);
    REQUIRE(
        announced.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2097152\r\n\r\n"));
    CHECK(status_of(announced.response()) == 413);  // and no 100 before it

    auto sent = Wire::tcp(port);
    REQUIRE(sent.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2097152\r\n\r\n"));
    REQUIRE(sent.send(std::string(2 * 1024 * 1024, 'x')));
    CHECK(status_of(sent.response()) == 413);
    CHECK(sent.ended());

    auto chunked = Wire::tcp(port);
    REQUIRE(chunked.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for (int i = 0; i < 8; ++i) REQUIRE(chunked.send("8000\r\n" + std::string(0x8000, 'x') + "\r\n"));
    CHECK(status_of(chunked.response()) == 413);
    CHECK(server.handled == 0);
}

TEST_CASE("one identity has a limit of requests in flight") {
    auto limits = small_limits();
    limits.in_flight_per_identity = 2;
    const fakes::ScratchFolder folder;
    ServerFixture server{limits};
    const auto path = listen_unix(server, folder);
    auto first = Wire::unix_socket(path);
    auto second = Wire::unix_socket(path);
    REQUIRE(first.send(get("/slow")));
    REQUIRE(second.send(get("/slow")));
    REQUIRE(eventually([&] { return server.slow_waiting == 2; }));

    auto third = Wire::unix_socket(path);
    REQUIRE(third.send(get("/x")));
    const auto refused = third.response();
    CHECK(status_of(refused) == 429);
    CHECK(header_of(refused, "Retry-After") == "1");
    CHECK(refused.find("\"code\":\"rate_limited\"") != std::string::npos);
    REQUIRE(third.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"));
    const auto undrained = third.response();
    CHECK(status_of(undrained) == 429);
    CHECK(header_of(undrained, "Connection") == "close");

    server.release = true;
    CHECK(status_of(first.response()) == 200);
    CHECK(status_of(second.response()) == 200);
    auto fourth = Wire::unix_socket(path);
    CHECK(eventually([&] {
        REQUIRE(fourth.send(get("/x")));
        return status_of(fourth.response()) == 200;
    }));
}

TEST_CASE("strangers who are slow keep nobody else from an answer") {
    auto limits = small_limits();
    limits.in_flight_per_identity = 2;
    limits.body = 30s;
    ServerFixture server{limits};
    const auto port = server.listen_tcp();
    const std::string unfinished =
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    auto first = Wire::tcp(port);
    auto second = Wire::tcp(port);
    REQUIRE(first.send(unfinished));
    REQUIRE(second.send(unfinished));
    for (auto* wire : {&first, &second}) REQUIRE(status_of(wire->response(true)) == 100);
    auto third = Wire::tcp(port);
    REQUIRE(third.send(unfinished));
    CHECK(status_of(third.response()) == 429);
    auto looks = Wire::tcp(port);
    REQUIRE(looks.send(get("/x")));
    CHECK(status_of(looks.response()) == 200);
    REQUIRE(first.send("xy"));
    CHECK(body_of(first.response()) == "xy");
}

TEST_CASE("what no handler sees is told") {
    auto limits = small_limits();
    limits.in_flight_per_identity = 0;
    ServerFixture server{limits};
    const auto port = server.listen_tcp();
    auto malformed = Wire::tcp(port);
    REQUIRE(malformed.send("GET / HTTP/1.1\r\n\r\n"));  // no Host
    CHECK(status_of(malformed.response()) == 400);
    auto one_too_many = Wire::tcp(port);
    REQUIRE(one_too_many.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"));
    CHECK(status_of(one_too_many.response()) == 429);
    CHECK(server.on_loop([&] { return server.refused; }) == std::vector<std::string>{"GET 400", "POST 429"});
}

TEST_CASE("who hangs up while its request waits gives its place back") {
    auto limits = small_limits();
    limits.in_flight_per_identity = 1;
    limits.hang_up_check = 20ms;
    const fakes::ScratchFolder folder;
    ServerFixture server{limits};
    const auto path = listen_unix(server, folder);
    const bool wholly = GENERATE(true, false);
    auto gone = Wire::unix_socket(path);
    REQUIRE(gone.send(get("/slow")));
    REQUIRE(eventually([&] { return server.slow_waiting == 1; }));
    auto other = Wire::unix_socket(path);
    REQUIRE(other.send(get("/x")));
    REQUIRE(status_of(other.response()) == 429);
    if (wholly)
        gone.hang_up();
    else
        gone.end_sending();
    CHECK(eventually([&] {
        REQUIRE(other.send(get("/x")));
        return status_of(other.response()) == 200;
    }));
    CHECK(eventually([&] { return server.connections() == 1; }));
}

TEST_CASE("who waits patiently is not taken for one who hung up") {
    auto limits = small_limits();
    limits.hang_up_check = 5ms;
    ServerFixture server{limits};
    auto wire = Wire::tcp(server.listen_tcp());
    REQUIRE(wire.send(get("/slow") + get("/x")));
    REQUIRE(eventually([&] { return server.slow_waiting == 1; }));
    std::this_thread::sleep_for(50ms);
    server.release = true;
    CHECK(status_of(wire.response()) == 200);
    CHECK(status_of(wire.response()) == 200);
}

TEST_CASE("connections beyond the limit wait for a place") {
    auto limits = small_limits();
    limits.connections = 2;
    ServerFixture server{limits};
    const auto port = server.listen_tcp();
    auto first = Wire::tcp(port);
    auto second = Wire::tcp(port);
    for (auto* wire : {&first, &second}) {
        REQUIRE(wire->send(get("/x")));
        REQUIRE(status_of(wire->response()) == 200);
    }
    auto third = Wire::tcp(port);
    REQUIRE(third.send(get("/third")));
    CHECK(server.connections() == 2);
    CHECK(server.handled == 2);
    first.hang_up();
    CHECK(body_of(third.response()) == "/third");
}
