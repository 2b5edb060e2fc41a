// What WebSockets carry: our two ends with each other, and the server's with what a client might really send.
#include "tests/component/net/websocket_scene.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <catch2/catch.hpp>

#include <array>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;
namespace asio = boost::asio;

TEST_CASE("what one end writes the other reads, data and text, whatever carries it") {
    Ends ends;
    const auto peer = ends.peers()[static_cast<std::size_t>(GENERATE(0, 1, 2))];
    with(ends, peer, to("/echo"), [](net::WebSocket& end) -> asio::awaitable<void> {
        CHECK(end.protocol() == our_protocol);
        const std::string small = "hello";
        CHECK(co_await end.write(asio::buffer(small)));
        CHECK(co_await read_bytes(end, small.size()) == small);
        CHECK(co_await end.write_text("{\"event\":\"eof\"}"));
        const auto got = co_await read_word(end);
        CHECK(got.kind == Kind::text);
        CHECK(got.text == "got {\"event\":\"eof\"}");
        CHECK(co_await end.write(asio::const_buffer{}));
        std::array<char, 8> room;
        const auto nothing = co_await end.read(asio::buffer(room));
        CHECK(nothing.kind == Kind::data);
        CHECK(nothing.bytes == 0);
        co_await end.close(1000, "done");
        CHECK_FALSE(co_await end.write(asio::buffer(small)));
        CHECK((co_await end.read(asio::buffer(room))).kind == Kind::broken);
    });
    CHECK(ends.has_noted("closed 1000 done"));
    CHECK(ends.has_noted("empty"));
    CHECK(eventually([&] { return ends.server.connections() == 0; }));
}

TEST_CASE("a large message passes both ways at once") {
    Ends ends;
    const auto peer = ends.peers()[static_cast<std::size_t>(GENERATE(0, 1, 2))];
    with(ends, peer, to("/echo"), [](net::WebSocket& end) -> asio::awaitable<void> {
        using namespace asio::experimental::awaitable_operators;
        const auto large = patterned(5'000'003);
        const auto [written, back] = co_await (end.write(asio::buffer(large)) && read_bytes(end, large.size()));
        CHECK(written);
        CHECK((back == large));
        co_await end.close(1000, {});
    });
    CHECK(ends.received == 5'000'003);
}

TEST_CASE("who doesn't read holds up its writer alone, for as long as it likes") {
    Ends ends{impatient()};
    auto request = to("/flood");
    request.ping_interval = 20ms;
    request.silence = 200ms;
    const auto peer = ends.peers()[static_cast<std::size_t>(GENERATE(0, 1, 2))];
    with(ends, peer, request, [&](net::WebSocket& end) -> asio::awaitable<void> {
        std::size_t before = 0;
        do {
            before = ends.sent;
            co_await pause(100ms);
        } while (ends.sent != before);
        co_await pause(500ms);
        CHECK(ends.sent == before);
        CHECK(ends.serving == 1);
        const std::string word = "the other way is open";
        CHECK(co_await end.write(asio::buffer(word)));
        while (ends.received < word.size()) co_await pause(1ms);
        const auto bytes = co_await read_bytes(end, before + 1'000'000);
        CHECK((bytes == patterned(bytes.size())));
        co_await end.close(1000, {});
    });
    CHECK(ends.has_noted("closed 1000 "));
    CHECK(ends.has_noted("write failed"));
}

TEST_CASE("a server's end that doesn't read holds up the client's writer") {
    Ends ends{impatient()};
    auto request = to("/stall");
    request.ping_interval = 20ms;
    request.silence = 200ms;
    with(ends, ends.peers()[2], request, [&](net::WebSocket& end) -> asio::awaitable<void> {
        using namespace asio::experimental::awaitable_operators;
        const auto large = patterned(20'000'000);
        const auto let_go_and_read = [&]() -> asio::awaitable<std::string> {
            co_await pause(500ms);
            CHECK(ends.received == 0);
            ends.release = true;
            co_return co_await read_bytes(end, large.size());
        };
        const auto [written, back] = co_await (end.write(asio::buffer(large)) && let_go_and_read());
        CHECK(written);
        CHECK((back == large));
        co_await end.close(1000, {});
    });
}

TEST_CASE("half of a message is handed on before the rest is there") {
    Ends ends;
    auto wire = raw(ends, "/echo");
    REQUIRE(wire.send(frame(binary_message, "0123456789", 100)));
    CHECK(wire.take(12) == std::string{"\x82\x0a"} + "0123456789");
    REQUIRE(wire.send(std::string(90, 'x')));
    CHECK(eventually([&] { return ends.received == 100; }));
    // In fragments, with a ping between them.
    auto other = raw(ends, "/echo");
    REQUIRE(other.send(frame(0x02, "ab") + frame(0x89, "ping") + frame(0x80, "cd")));
    std::string back;
    while (back.size() < 4 + 6 + 4) {
        auto more = other.take(1);
        REQUIRE_FALSE(more.empty());
        back += more;
    }
    CHECK(back == std::string{"\x82\x02"} + "ab" + "\x8a\x04" + "ping" + "\x82\x02" + "cd");
}

TEST_CASE("a text comes whole or, when it is too long, ends the connection") {
    Ends ends;
    auto wire = raw(ends, "/echo");
    REQUIRE(wire.send(frame(0x01, "one ") + frame(0x00, "and ") + frame(0x80, "two")));
    CHECK(wire.take(17) == std::string{"\x81\x0f"} + "got one and two");
    const std::string longest(net::WebSocket::longest_text, 'x');
    REQUIRE(wire.send(frame(text_message, longest)));
    CHECK(ends.has_noted("text " + longest));
    static_cast<void>(wire.take(4 + 4 + longest.size()));
    REQUIRE(wire.send(frame(text_message, longest + "y")));
    CHECK(wire.take(4).substr(2) == "\x03\xf1");  // 1009
    CHECK(ends.has_noted("broken"));
    CHECK(eventually([&] {
        wire.hang_up();
        return ends.server.connections() == 0;
    }));
}

TEST_CASE("what breaks RFC 6455 ends the connection with the code for it") {
    Ends ends;
    struct Breach {
        std::string bytes;
        unsigned code;
    };
    const auto breach = GENERATE(Breach{std::string{"\x82\x02"} + "ab", 1002},  // not masked
                                 Breach{frame(0xC2, "ab"), 1002},               // a reserved bit
                                 Breach{frame(0x83, "ab"), 1002},               // a reserved opcode
                                 Breach{frame(0x80, "ab"), 1002},               // continues nothing
                                 Breach{frame(0x09, "ab"), 1002},               // a ping in fragments
                                 Breach{frame(0x89, std::string(126, 'x')), 1002},
                                 Breach{frame(text_message, "\xff\xfe"), 1007}, Breach{frame(0x88, "x"), 1002});
    auto wire = raw(ends, "/echo");
    REQUIRE(wire.send(breach.bytes));
    CHECK(wire.take(4) == close_of(breach.code, ""));
    CHECK(ends.has_noted("broken"));
    wire.hang_up();
    CHECK(eventually([&] { return ends.server.connections() == 0; }));
}

TEST_CASE("a ping is answered, and a client that is silent is pinged") {
    Ends ends{impatient()};
    auto wire = raw(ends, "/echo");
    REQUIRE(wire.send(frame(0x89, "hello")));
    CHECK(wire.take(7) == std::string{"\x8a\x05"} + "hello");
    for (int i = 0; i < 20; ++i) {
        CHECK(wire.take(2) == std::string{'\x89', '\0'});
        REQUIRE(wire.send(frame(0x8A, "")));
    }
    // One that answers nothing any more is taken for gone.
    CHECK(ends.has_noted("broken"));
    CHECK(eventually([&] { return ends.server.connections() == 0; }));
}

TEST_CASE("two ends with nothing to say, and one that doesn't listen for a while, stay together") {
    Ends ends{impatient()};
    auto request = to("/echo");
    request.ping_interval = 20ms;
    request.silence = 200ms;
    const bool listens = GENERATE(true, false);
    with(ends, ends.peers()[2], request, [&](net::WebSocket& end) -> asio::awaitable<void> {
        using namespace asio::experimental::awaitable_operators;
        const auto later = [&]() -> asio::awaitable<void> {
            co_await pause(1s);
            const std::string word = "still here";
            CHECK(co_await end.write(asio::buffer(word)));
        };
        if (!listens) co_await later();
        if (listens)
            CHECK(co_await (read_bytes(end, 10) && later()) == "still here");
        else
            CHECK(co_await read_bytes(end, 10) == "still here");
        co_await end.close(1000, {});
    });
    CHECK(ends.has_noted("closed 1000 "));
}
