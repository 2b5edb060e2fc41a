// Bodies that are sent while they come into being.
#include "tests/component/net/feed.hpp"
#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/wire.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <future>
#include <vector>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;

namespace {

net::ServerLimits stream_limits() {
    auto limits = small_limits();
    limits.hang_up_check = 20ms;
    return limits;
}

// One that streams `feed`, on every kind of socket.
class StreamServer {
public:
    explicit StreamServer(Feed& feed, net::ServerLimits limits = stream_limits()) : server(limits) {
        server.streamed = [&feed] { return feed.source(); };
        REQUIRE(server.listen(net::UnixEndpoint{.path = path_, .mode = 0600, .group = {}}));
        port = server.listen_tcp();
        tls_port_ = server.listen_tcp(certificates().server());
    }

    Wire local() { return Wire::unix_socket(path_); }
    Wire secure() {
        auto wire = Wire::tls(tls_port_, certificates().client("alice"));
        REQUIRE(wire.shake());
        return wire;
    }
    std::vector<Wire> one_of_each() {
        std::vector<Wire> wires;
        wires.push_back(Wire::tcp(port));
        wires.push_back(local());
        wires.push_back(secure());
        return wires;
    }
    // The feed is touched on the loop.
    template <class Work>
    void on_loop(Work work) {
        server.on_loop(std::move(work));
    }
    bool logged(base::Level level, const std::string& message, const std::string& part = {}) {
        return std::ranges::any_of(server.logged(), [&](const base::Record& record) {
            return record.level == level && record.message == message &&
                   base::message_with_fields(record).find(part) != std::string::npos;
        });
    }

    ServerFixture server;
    std::uint16_t port = 0;

private:
    fakes::ScratchFolder folder_;
    std::string path_ = folder_.path("socket");
    std::uint16_t tls_port_ = 0;
};

std::string begin_stream(Wire& wire) {
    REQUIRE(wire.send(get("/stream")));
    auto head = wire.response(true);
    REQUIRE(status_of(head) == 200);
    return head;
}

net::Chunk large_piece() { return chunk_of(std::string(std::size_t{16} * 1024 * 1024, 'x')); }

}  // namespace

TEST_CASE("a streamed body comes in chunks as they are made, and the connection serves on") {
    Feed feed;
    StreamServer server{feed};
    auto wires = server.one_of_each();
    for (auto& wire : wires) {
        const auto head = begin_stream(wire);
        CHECK(header_of(head, "Transfer-Encoding") == "chunked");
        CHECK(header_of(head, "Content-Length").empty());
        CHECK(header_of(head, "Connection").empty());
        CHECK(header_of(head, "Content-Type") == "text/event-stream");
    }
    const std::string large(300'000, 'y');
    server.on_loop([&] { feed.push(chunk_of("id: 1\n\n")); });
    for (auto& wire : wires) CHECK(wire.chunk() == "id: 1\n\n");
    server.on_loop([&] {
        feed.push(chunk_of(""));  // would be the last
        feed.push(chunk_of(large));
    });
    for (auto& wire : wires) CHECK(wire.chunk() == large);
    REQUIRE(eventually([&] { return feed.waiting == 3; }));
    server.on_loop([&] { feed.end(); });
    for (auto& wire : wires) {
        CHECK(wire.chunk() == "");
        REQUIRE(wire.send(get("/x")));
        CHECK(body_of(wire.response()) == "/x");
        begin_stream(wire);
        CHECK(wire.chunk() == "id: 1\n\n");
        CHECK(wire.chunk() == large);
        CHECK(wire.chunk() == "");
    }
    CHECK(server.server.connections() == 3);
    CHECK(eventually([&] { return feed.alive == 0; }));
    CHECK(feed.cancelled == 0);
}

TEST_CASE("for HTTP/1.0 a streamed body ends with the connection") {
    Feed feed;
    StreamServer server{feed};
    server.on_loop([&] {
        feed.push(chunk_of("one "));
        feed.push(chunk_of("two "));
        feed.end();
    });
    for (auto& wire : server.one_of_each()) {
        REQUIRE(wire.send("GET /stream HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"));
        const auto head = wire.response(true);
        CHECK(status_of(head) == 200);
        CHECK(header_of(head, "Transfer-Encoding").empty());
        CHECK(header_of(head, "Content-Length").empty());
        CHECK(header_of(head, "Connection") == "close");
        CHECK(wire.rest() == "one two ");
    }
    CHECK(eventually([&] { return server.server.connections() == 0; }));
}

TEST_CASE("HEAD has the head of a stream, takes no place and asks its source for nothing") {
    Feed feed;
    auto limits = stream_limits();
    limits.streams_per_identity = 0;
    StreamServer server{feed, limits};
    server.on_loop([&] { feed.push(chunk_of("never")); });
    for (auto& wire : server.one_of_each()) {
        REQUIRE(wire.send("HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n"));
        const auto head = wire.response(true);
        CHECK(status_of(head) == 200);
        CHECK(header_of(head, "Transfer-Encoding") == "chunked");
        REQUIRE(wire.send(get("/x")));
        CHECK(body_of(wire.response()) == "/x");
    }
    CHECK(feed.given == 0);
    CHECK(eventually([&] { return feed.alive == 0; }));
}

TEST_CASE("an identity has sixteen streams, strangers together as many, and who ends one may begin another") {
    Feed feed;
    StreamServer server{feed};
    const bool stranger = GENERATE(true, false);
    const auto connect = [&] { return stranger ? Wire::tcp(server.port) : server.local(); };
    std::vector<Wire> readers;
    for (int i = 0; i < 16; ++i) begin_stream(readers.emplace_back(connect()));
    auto other = stranger ? server.local() : Wire::tcp(server.port);
    begin_stream(other);

    auto late = connect();
    REQUIRE(late.send(get("/stream")));
    const auto refused = late.response();
    CHECK(status_of(refused) == 429);
    CHECK(header_of(refused, "Retry-After") == "1");
    CHECK(header_of(refused, "Transfer-Encoding").empty());
    CHECK(refused.find("\"code\":\"rate_limited\"") != std::string::npos);
    CHECK(server.server.on_loop([&] { return server.server.refused; }) == std::vector<std::string>{"GET 429"});
    CHECK(feed.alive == 17);

    readers[3].hang_up();
    CHECK(eventually([&] {
        REQUIRE(late.send(get("/stream")));
        return status_of(late.response()) == 200;
    }));
    server.on_loop([&] { feed.end(); });
    CHECK(late.chunk() == "");
    REQUIRE(eventually([&] { return feed.alive == 0; }));
    begin_stream(late);
}

TEST_CASE("streams don't count among the requests in flight") {
    Feed feed;
    auto limits = stream_limits();
    limits.in_flight_per_identity = 1;
    StreamServer server{feed, limits};
    std::vector<Wire> readers;
    for (int i = 0; i < 3; ++i) begin_stream(readers.emplace_back(server.local()));
    auto wire = server.local();
    REQUIRE(wire.send(get("/x")));
    CHECK(status_of(wire.response()) == 200);

    auto slow = server.local();
    REQUIRE(slow.send(get("/slow")));
    REQUIRE(eventually([&] { return server.server.slow_waiting == 1; }));
    REQUIRE(wire.send(get("/stream")));  // a request until its head is sent
    CHECK(status_of(wire.response()) == 429);
    server.on_loop([&] { feed.end(); });
    for (auto& reader : readers) CHECK(reader.chunk() == "");
}

TEST_CASE("a reader too slow is cut off, and it is logged") {
    Feed feed;
    auto limits = stream_limits();
    limits.stream_write = 100ms;
    StreamServer server{feed, limits};
    auto wire = Wire::tcp(server.port, 4096);
    begin_stream(wire);
    server.on_loop([&] { feed.push(large_piece()); });
    CHECK(eventually([&] { return server.server.connections() == 0; }));
    CHECK(feed.alive == 0);
    CHECK_FALSE(wire.chunk());
    CHECK(server.logged(base::Level::info, "a reader too slow is cut off", "by=anonymous"));
}

TEST_CASE("a shutdown ends streams at once, and each reader can tell that it has all") {
    Feed feed{GENERATE(Feed::WhenCancelled::return_null, Feed::WhenCancelled::throw_it)};
    StreamServer server{feed};
    auto wires = server.one_of_each();
    for (auto& wire : wires) begin_stream(wire);
    auto old = server.local();
    REQUIRE(old.send("GET /stream HTTP/1.0\r\n\r\n"));
    REQUIRE(status_of(old.response(true)) == 200);
    auto about_to = server.local();
    REQUIRE(about_to.send(get("/slow/stream")));
    server.on_loop([&] { feed.push(chunk_of("one")); });
    REQUIRE(eventually([&] { return feed.given == 4 && feed.waiting == 4 && server.server.slow_waiting == 1; }));

    // Longer than any test may take.
    auto ended = std::async(std::launch::async, [&] { server.server.shut_down(1h); });
    for (auto& wire : wires) {
        CHECK(wire.chunk() == "one");
        CHECK(wire.chunk() == "");
        CHECK(wire.ended());
        wire.hang_up();
    }
    CHECK(old.rest() == "one");
    old.hang_up();
    server.server.release = true;
    const auto head = about_to.response(true);
    CHECK(header_of(head, "Connection") == "close");
    CHECK(about_to.chunk() == "");
    CHECK(about_to.ended());
    about_to.hang_up();
    ended.get();
    CHECK(feed.cancelled == 4);
    CHECK(feed.alive == 0);
    CHECK(server.server.connections() == 0);
    CHECK_FALSE(server.logged(base::Level::error, "a streamed body failed"));
}

TEST_CASE("a reader that takes nothing doesn't hold up a shutdown") {
    Feed feed;
    auto limits = stream_limits();
    limits.stream_write = 1h;
    StreamServer server{feed, limits};
    auto wire = Wire::tcp(server.port, 4096);
    begin_stream(wire);
    server.on_loop([&] { feed.push(large_piece()); });
    REQUIRE(eventually([&] { return feed.given == 1; }));
    server.server.shut_down(1h);
    CHECK(server.server.connections() == 0);
    CHECK_FALSE(wire.chunk());
}

TEST_CASE("what is left of a stream after the grace is cut") {
    Feed feed;
    auto limits = stream_limits();
    limits.stream_write = 1h;
    StreamServer server{feed, limits};
    auto wire = server.secure();
    begin_stream(wire);
    server.on_loop([&] { feed.push(large_piece()); });
    REQUIRE(eventually([&] { return feed.given == 1; }));
    server.server.shut_down(0ms);
    CHECK(server.server.connections() == 0);
    CHECK(feed.alive == 0);
}

TEST_CASE("who hangs up ends its stream") {
    Feed feed{GENERATE(Feed::WhenCancelled::return_null, Feed::WhenCancelled::throw_it)};
    StreamServer server{feed};
    auto wires = server.one_of_each();
    for (auto& wire : wires) begin_stream(wire);
    REQUIRE(eventually([&] { return feed.waiting == 3; }));
    const int how = GENERATE(0, 1, 2);
    for (auto& wire : wires) {
        if (how == 0) wire.hang_up();
        if (how == 1) wire.hang_up_hard();
        if (how == 2) wire.end_sending();
    }
    CHECK(eventually([&] { return feed.alive == 0 && server.server.connections() == 0; }));
    CHECK(feed.cancelled == 3);
}

TEST_CASE("who hangs up in the middle of a piece ends its stream") {
    Feed feed;
    auto limits = stream_limits();
    limits.stream_write = 1h;
    StreamServer server{feed, limits};
    auto wires = server.one_of_each();
    for (auto& wire : wires) begin_stream(wire);
    server.on_loop([&] { feed.push(large_piece()); });
    REQUIRE(eventually([&] { return feed.given == 3; }));
    for (auto& wire : wires) wire.hang_up();
    CHECK(eventually([&] { return feed.alive == 0 && server.server.connections() == 0; }));
}

TEST_CASE("a source that fails cuts its connection: the body is not taken for complete") {
    Feed feed;
    StreamServer server{feed};
    auto wires = server.one_of_each();
    for (auto& wire : wires) begin_stream(wire);
    server.on_loop([&] {
        feed.push(chunk_of("one"));
        feed.fail();
    });
    for (auto& wire : wires) {
        CHECK(wire.chunk() == "one");
        CHECK_FALSE(wire.chunk());
    }
    CHECK(eventually([&] { return server.server.connections() == 0; }));
    CHECK(feed.alive == 0);
    CHECK(server.logged(base::Level::error, "a streamed body failed", "the feed's secret"));
}

TEST_CASE("all readers share the bytes of a piece") {
    Feed feed;
    auto limits = stream_limits();
    limits.stream_write = 1h;
    StreamServer server{feed, limits};
    auto wires = server.one_of_each();
    for (auto& wire : wires) begin_stream(wire);
    const auto small = chunk_of("one");
    server.on_loop([&] { feed.push(small); });
    for (auto& wire : wires) CHECK(wire.chunk() == "one");
    const auto uses = [&](const net::Chunk& piece) { return server.server.on_loop([&] { return piece.use_count(); }); };
    CHECK(eventually([&] { return uses(small) == 2; }));  // ours and the feed's

    const auto large = large_piece();
    server.on_loop([&] { feed.push(large); });
    CHECK(eventually([&] { return uses(large) == 2 + 3; }));
    for (auto& wire : wires) CHECK(wire.chunk() == *large);
    CHECK(eventually([&] { return uses(large) == 2; }));
}
