// WebSockets: our two ends with each other, and the server's with what a client might really send.
#include "net/websocket.hpp"

#include "net/problem.hpp"
#include "tests/component/net/scripted_server.hpp"
#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/wire.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <mutex>
#include <optional>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;
using Kind = net::WebSocket::Kind;
using Opened = std::expected<std::unique_ptr<net::WebSocket>, net::WebSocketRefusal>;
namespace asio = boost::asio;

namespace {

constexpr std::string_view our_protocol = "ghost.stream.v1";

net::ServerLimits quick_limits() {
    auto limits = small_limits();
    limits.hang_up_check = 5ms;
    return limits;
}

// Pings and loses patience before a test does.
net::ServerLimits impatient() {
    auto limits = quick_limits();
    limits.websocket_ping = 20ms;
    limits.websocket_silence = 200ms;
    return limits;
}

asio::awaitable<void> pause(std::chrono::milliseconds span) {
    asio::steady_timer timer{co_await asio::this_coro::executor, span};
    co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
}

std::string patterned(std::size_t size, std::size_t from = 0) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>((from + i) * 131 / 7);
    return text;
}

// What the server's ends do, by path: /echo sends back what comes; /flood sends without an end and drops what comes;
// /stall reads and writes nothing until `release`; /throw fails; /bye says goodbye with 4000 "idle for too long";
// /deaf goes on after it was told to stop. What they meet is noted.
class Ends {
public:
    explicit Ends(net::ServerLimits limits = quick_limits()) : server(limits) {
        server.handler = [this](net::Request request) { return answer(std::move(request)); };
        REQUIRE(server.listen(net::UnixEndpoint{.path = path, .mode = 0600, .group = {}}));
        port = server.listen_tcp();
        tls_port = server.listen_tcp(certificates().server());
    }
    ~Ends() {
        release = true;
        server.shut_down(0ms);
    }
    Ends(const Ends&) = delete;
    Ends& operator=(const Ends&) = delete;

    [[nodiscard]] std::vector<net::Peer> peers() const {
        return {net::UnixPeer{path}, net::HttpPeer{"127.0.0.1", std::to_string(port)},
                net::HttpsPeer{"127.0.0.1", std::to_string(tls_port), certificates().client("alice")}};
    }
    std::vector<std::string> noted() {
        const std::lock_guard lock{mutex_};
        return notes_;
    }
    bool has_noted(const std::string& what) {
        return eventually([&] { return std::ranges::count(noted(), what) > 0; });
    }

    fakes::ScratchFolder folder;
    std::string path = folder.path("socket");
    ServerFixture server;
    std::uint16_t port = 0;
    std::uint16_t tls_port = 0;
    std::atomic<bool> release{false};
    std::atomic<std::size_t> received{0};
    std::atomic<std::size_t> sent{0};
    std::atomic<int> serving{0};

private:
    asio::awaitable<net::Response> answer(net::Request request) {
        const auto asked = net::asks_for_websocket(request);
        const bool not_at_all = !asked && asked.error().code == base::Errc::upgrade_required;
        if (!asked)
            co_return net::problem(not_at_all ? 426 : 422, base::name_of(asked.error().code), "No",
                                   asked.error().detail, request.context.request_id);
        if (request.path == "/forbidden") co_return net::problem(403, "forbidden", "Forbidden", "not you", "id");
        if (request.path == "/wordy") co_return net::Response{.status = 409, .body = std::string(100'000, 'w')};
        if (request.path == "/no-upgrade") co_return net::Response{.status = 101};
        auto reply = net::websocket_reply(
            request, {our_protocol}, [this, which = request.path](net::WebSocket& end) { return serve(end, which); });
        reply.headers.set("X-Extra", "a\r\nb");
        if (request.path == "/misused") reply.status = 200;
        co_return reply;
    }

    asio::awaitable<void> serve(net::WebSocket& end, std::string which) {
        ++serving;
        const std::unique_ptr<std::atomic<int>, void (*)(std::atomic<int>*)> leaving{
            &serving, [](std::atomic<int>* count) { --*count; }};
        if (which == "/throw") throw std::runtime_error{"the secret"};
        if (which == "/bye") co_return co_await end.close(4000, "idle for too long");
        if (which == "/flood") co_return co_await flood(end);
        while (which == "/stall" && !release) co_await pause(2ms);
        co_await echo(end, which == "/deaf");
    }

    asio::awaitable<void> flood(net::WebSocket& end) {
        using namespace asio::experimental::awaitable_operators;
        co_await (send_on_and_on(end) && echo(end, false, true));
    }
    asio::awaitable<void> send_on_and_on(net::WebSocket& end) {
        while (true) {
            const auto block = patterned(64 * 1024, sent);
            const bool gone = !co_await end.write(asio::buffer(block));
            if (gone) break;
            sent += block.size();
        }
        note("write failed");
    }

    asio::awaitable<void> echo(net::WebSocket& end, bool deaf, bool silent = false) {
        std::array<char, 16 * 1024> room;
        while (true) {
            const auto got = co_await end.read(asio::buffer(room));
            switch (got.kind) {
                case Kind::data:
                    received += got.bytes;
                    if (got.bytes == 0) note("empty");
                    if (!silent) static_cast<void>(co_await end.write(asio::buffer(room.data(), got.bytes)));
                    continue;
                case Kind::text:
                    note("text " + got.text);
                    if (!silent) static_cast<void>(co_await end.write_text("got " + got.text));
                    continue;
                case Kind::closed: note("closed " + std::to_string(got.code) + " " + got.text); break;
                case Kind::broken: note("broken"); break;
                case Kind::stopped:
                    note("stopped");
                    if (deaf) co_await pause(24h);
                    if (!silent) co_await end.close(1001, "the agent is stopping");
                    break;
            }
            co_return;
        }
    }
    void note(std::string what) {
        const std::lock_guard lock{mutex_};
        notes_.push_back(std::move(what));
    }

    std::mutex mutex_;
    std::vector<std::string> notes_;
};

net::WebSocketRequest to(std::string target) {
    return {.target = std::move(target), .protocol = std::string{our_protocol}};
}

// Runs `scene` with an open WebSocket, on the loop.
template <class Scene>
void with(Ends& ends, const net::Peer& peer, net::WebSocketRequest request, Scene scene) {
    const auto play = [&]() -> asio::awaitable<std::string> {
        auto opened = co_await net::open_websocket(peer, request);
        if (!opened) co_return opened.error().error.detail;
        co_await scene(**opened);
        co_return "played";
    };
    CHECK(ends.server.await(play()) == "played");
}

asio::awaitable<std::string> read_bytes(net::WebSocket& end, std::size_t count) {
    std::string all;
    std::array<char, 20'000> room;
    while (all.size() < count) {
        const auto got = co_await end.read(asio::buffer(room));
        if (got.kind != Kind::data) break;
        all.append(room.data(), got.bytes);
    }
    co_return all;
}

// The first that isn't data.
asio::awaitable<net::WebSocket::Read> read_word(net::WebSocket& end) {
    std::array<char, 16 * 1024> room;
    while (true) {
        auto got = co_await end.read(asio::buffer(room));
        if (got.kind != Kind::data) co_return got;
    }
}

std::string handshake(std::string_view path, std::string_view more = {}, std::string_view version = "HTTP/1.1") {
    return "GET " + std::string{path} + " " + std::string{version} +
           "\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
           std::string{more} + "\r\n";
}

// A client's frame, masked with zeroes; `size`: what its head says.
std::string frame(unsigned first, std::string_view payload, std::optional<std::size_t> size = {}) {
    const auto length = size.value_or(payload.size());
    std::string text{static_cast<char>(first)};
    if (length < 126) {
        text += static_cast<char>(0x80U | length);
    } else {
        text += static_cast<char>(0x80U | 126U);
        text += static_cast<char>(length >> 8U);
        text += static_cast<char>(length & 0xFFU);
    }
    return text + std::string(4, '\0') + std::string{payload};
}

Wire raw(Ends& ends, std::string_view path) {
    auto wire = Wire::unix_socket(ends.path);
    REQUIRE(wire.send(handshake(path)));
    REQUIRE(status_of(wire.response()) == 101);
    return wire;
}

std::string close_of(unsigned code, std::string_view reason) {
    std::string payload{static_cast<char>(code >> 8U), static_cast<char>(code & 0xFFU)};
    payload += reason;
    return std::string{static_cast<char>(0x88)} + static_cast<char>(payload.size()) + payload;
}

constexpr unsigned binary = 0x82;
constexpr unsigned text = 0x81;

}  // namespace

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
    REQUIRE(wire.send(frame(binary, "0123456789", 100)));
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
    REQUIRE(wire.send(frame(text, longest)));
    CHECK(ends.has_noted("text " + longest));
    static_cast<void>(wire.take(4 + 4 + longest.size()));
    REQUIRE(wire.send(frame(text, longest + "y")));
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
                                 Breach{frame(text, "\xff\xfe"), 1007}, Breach{frame(0x88, "x"), 1002});
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

TEST_CASE("a shutdown stops the ends, which say goodbye") {
    Ends ends;
    const auto peer = ends.peers()[static_cast<std::size_t>(GENERATE(0, 1, 2))];
    with(ends, peer, to("/echo"), [&](net::WebSocket& end) -> asio::awaitable<void> {
        using namespace asio::experimental::awaitable_operators;
        const auto shut_down = [&]() -> asio::awaitable<void> {
            while (ends.serving == 0) co_await pause(1ms);
            co_await (*ends.server).shut_down(1h);
        };
        const auto word = co_await (read_word(end) && shut_down());
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
        const auto shut_down = [&]() -> asio::awaitable<void> {
            while (ends.serving == 0) co_await pause(1ms);
            co_await (*ends.server).shut_down(20ms);
        };
        const auto word = co_await (read_word(end) && shut_down());
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
        REQUIRE(wire.send(frame(binary, "x")));
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
    REQUIRE(hasty.send(handshake("/echo") + frame(binary, "x")));
    CHECK(status_of(hasty.response()) == 400);
    CHECK(hasty.ended());
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
