// How WebSockets end: goodbyes, stops, cancellations, breaks.
#include "tests/component/net/websocket_scene.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;
namespace asio = boost::asio;

TEST_CASE("codes and reasons of a goodbye arrive on both sides") {
    Ends ends;
    const auto peer = ends.peers()[static_cast<std::size_t>(GENERATE(0, 1, 2))];
    with(ends, peer, to("/echo"), [](net::WebSocket& end) { return end.close(4001, "the VM stopped"); });
    CHECK(ends.has_noted("closed 4001 the VM stopped"));
    with(ends, peer, to("/bye"), [](net::WebSocket& end) -> asio::awaitable<void> {
        const auto word = co_await read_word(end);
        CHECK(word.kind == Kind::closed);
        CHECK(word.code == 4000);
        CHECK(word.text == "idle for too long");
        CHECK((co_await read_word(end)).kind == Kind::broken);
        co_await end.close(1000, {});
    });
    std::string umlauts;
    for (int i = 0; i < 100; ++i) umlauts += "ü";
    with(ends, peer, to("/echo"), [&](net::WebSocket& end) { return end.close(1008, umlauts); });
    CHECK(ends.has_noted("closed 1008 " + umlauts.substr(0, 122)));
    auto wire = raw(ends, "/echo");
    REQUIRE(wire.send(frame(0x88, "")));
    CHECK(ends.has_noted("closed 1005 "));
    CHECK(wire.take(1) == "\x88");
    wire.hang_up();
    CHECK(eventually([&] { return ends.server.connections() == 0; }));
}

TEST_CASE("a read that waits ends with the goodbye") {
    Ends ends;
    with(ends, ends.peers()[2], to("/echo"), [](net::WebSocket& end) -> asio::awaitable<void> {
        using namespace asio::experimental::awaitable_operators;
        const auto leave = [&]() -> asio::awaitable<void> {
            co_await pause(10ms);
            co_await end.close(4001, "enough");
        };
        const auto word = co_await (read_word(end) && leave());
        CHECK(word.kind == Kind::broken);
    });
    CHECK(ends.has_noted("closed 4001 enough"));
}

namespace {

asio::awaitable<void> shut_down_serving(Ends& ends, std::chrono::milliseconds grace) {
    while (ends.serving == 0) co_await pause(1ms);
    co_await (*ends.server).shut_down(grace);
}

}  // namespace

TEST_CASE("a shutdown stops the ends, which say goodbye") {
    Ends ends;
    const auto peer = ends.peers()[static_cast<std::size_t>(GENERATE(0, 1, 2))];
    with(ends, peer, to("/echo"), [&](net::WebSocket& end) -> asio::awaitable<void> {
        using namespace asio::experimental::awaitable_operators;
        const auto word = co_await (read_word(end) && shut_down_serving(ends, 1h));
        CHECK(word.kind == Kind::closed);
        CHECK(word.code == 1001);
        CHECK(word.text == "the agent is stopping");
    });
    CHECK(ends.noted() == std::vector<std::string>{"stopped"});
    CHECK(ends.server.connections() == 0);
}

TEST_CASE("a stop fails a write that the peer holds up, and the peer can tell that something is missing") {
    Ends ends;
    with(ends, ends.peers()[2], to("/flood"), [&](net::WebSocket& end) -> asio::awaitable<void> {
        std::size_t before = 0;
        do {
            before = ends.sent;
            co_await pause(100ms);
        } while (ends.sent != before);
        co_await (*ends.server).shut_down(1h);
        CHECK((*ends.server).connections() == 0);
        CHECK((co_await read_word(end)).kind == Kind::broken);
    });
    CHECK(ends.has_noted("stopped"));
    CHECK(ends.has_noted("write failed"));
}

TEST_CASE("an end that doesn't heed is cut after the grace") {
    Ends ends;
    with(ends, ends.peers()[2], to("/deaf"), [&](net::WebSocket& end) -> asio::awaitable<void> {
        using namespace asio::experimental::awaitable_operators;
        const auto word = co_await (read_word(end) && shut_down_serving(ends, 20ms));
        CHECK(word.kind == Kind::broken);
    });
    CHECK(ends.server.connections() == 0);
    CHECK(ends.serving == 0);
}

TEST_CASE("the client's end stops and aborts likewise") {
    Ends ends;
    with(ends, ends.peers()[2], to("/echo"), [](net::WebSocket& end) -> asio::awaitable<void> {
        using namespace asio::experimental::awaitable_operators;
        const auto stop = [&]() -> asio::awaitable<void> {
            co_await pause(10ms);
            end.stop();
            end.stop();
        };
        CHECK((co_await (read_word(end) && stop())).kind == Kind::stopped);
        CHECK((co_await read_word(end)).kind == Kind::stopped);
        const std::string word = "late";
        CHECK_FALSE(co_await end.write(asio::buffer(word)));
        co_await end.close(1001, "stopped");
    });
    CHECK(ends.has_noted("closed 1001 stopped"));
    with(ends, ends.peers()[2], to("/echo"), [](net::WebSocket& end) -> asio::awaitable<void> {
        using namespace asio::experimental::awaitable_operators;
        const auto abort = [&]() -> asio::awaitable<void> {
            co_await pause(10ms);
            end.abort();
        };
        CHECK((co_await (read_word(end) && abort())).kind == Kind::broken);
        co_await end.close(1000, {});
    });
    CHECK(ends.has_noted("broken"));
}

TEST_CASE("a read that is cancelled leaves the way open for a goodbye") {
    Ends ends;
    with(ends, ends.peers()[static_cast<std::size_t>(GENERATE(0, 2))], to("/echo"),
         [](net::WebSocket& end) -> asio::awaitable<void> {
             using namespace asio::experimental::awaitable_operators;
             const auto first = co_await (read_word(end) || pause(20ms));
             CHECK(first.index() == 1);
             co_await end.close(4001, "no more");
         });
    CHECK(ends.has_noted("closed 4001 no more"));
}

TEST_CASE("who breaks off is noticed at once, and its place is free again") {
    auto limits = quick_limits();
    limits.websockets_per_identity = 1;
    Ends ends{limits};
    const int how = GENERATE(0, 1, 2);
    auto wire = raw(ends, "/echo");
    if (how == 0) wire.hang_up();
    if (how == 1) wire.hang_up_hard();
    if (how == 2) wire.end_sending();
    CHECK(ends.has_noted("broken"));
    CHECK(eventually([&] {
        auto next = Wire::unix_socket(ends.path);
        return next.send(handshake("/echo")) && status_of(next.response()) == 101;
    }));
}

TEST_CASE("an end that fails is logged, and its peer told no more than that") {
    Ends ends;
    with(ends, ends.peers()[0], to("/throw"), [](net::WebSocket& end) -> asio::awaitable<void> {
        const auto word = co_await read_word(end);
        CHECK(word.kind == Kind::closed);
        CHECK(word.code == 1011);
        CHECK(word.text.find("secret") == std::string::npos);
    });
    CHECK(std::ranges::any_of(ends.server.logged(), [](const base::Record& record) {
        return record.message == "a WebSocket failed" &&
               base::message_with_fields(record).find("the secret") != std::string::npos;
    }));
}
