#include "tests/component/net/websocket_scene.hpp"

#include "net/problem.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <stdexcept>

namespace ghost::test {
namespace asio = boost::asio;
using namespace std::chrono_literals;

net::ServerLimits impatient() {
    auto limits = quick_limits();
    limits.websocket_ping = 20ms;
    limits.websocket_silence = 200ms;
    return limits;
}

std::string patterned(std::size_t size, std::size_t from) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>((from + i) * 131 / 7);
    return text;
}

Ends::Ends(net::ServerLimits limits) : ThreeWays(limits) {
    server.handler = [this](net::Request request) { return answer(std::move(request)); };
    listen();
}

std::vector<std::string> Ends::noted() {
    const std::lock_guard lock{mutex_};
    return notes_;
}

bool Ends::has_noted(const std::string& what) {
    return eventually([&] { return std::ranges::count(noted(), what) > 0; });
}

asio::awaitable<net::Response> Ends::answer(net::Request request) {
    const auto asked = net::asks_for_websocket(request);
    const bool not_at_all = !asked && asked.error().code == base::Errc::upgrade_required;
    if (!asked)
        co_return net::problem(not_at_all ? 426 : 422, base::name_of(asked.error().code), "No", asked.error().detail,
                               request.context.request_id);
    if (request.path == "/forbidden") co_return net::problem(403, "forbidden", "Forbidden", "not you", "id");
    if (request.path == "/wordy") co_return net::Response{.status = 409, .body = std::string(100'000, 'w')};
    if (request.path == "/no-upgrade") co_return net::Response{.status = 101};
    auto reply = net::websocket_reply(request, {our_protocol},
                                      [this, which = request.path](net::WebSocket& end) { return serve(end, which); });
    reply.headers.set("X-Extra", "a\r\nb");
    if (request.path == "/misused") reply.status = 200;
    co_return reply;
}

asio::awaitable<void> Ends::serve(net::WebSocket& end, std::string which) {
    ++serving;
    const std::unique_ptr<std::atomic<int>, void (*)(std::atomic<int>*)> leaving{
        &serving, [](std::atomic<int>* count) { --*count; }};
    if (which == "/throw") throw std::runtime_error{"the secret"};
    if (which == "/bye") co_return co_await end.close(4000, "idle for too long");
    if (which == "/flood") co_return co_await flood(end);
    while (which == "/stall" && !release) co_await pause(2ms);
    co_await echo(end, which == "/deaf");
}

asio::awaitable<void> Ends::flood(net::WebSocket& end) {
    using namespace asio::experimental::awaitable_operators;
    co_await (send_on_and_on(end) && echo(end, false, true));
}

asio::awaitable<void> Ends::send_on_and_on(net::WebSocket& end) {
    while (true) {
        const auto block = patterned(64 * 1024, sent);
        const bool gone = !co_await end.write(asio::buffer(block));
        if (gone) break;
        sent += block.size();
    }
    note("write failed");
}

asio::awaitable<void> Ends::echo(net::WebSocket& end, bool deaf, bool silent) {
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

void Ends::note(std::string what) {
    const std::lock_guard lock{mutex_};
    notes_.push_back(std::move(what));
}

net::WebSocketRequest to(std::string target) {
    return {.target = std::move(target), .protocol = std::string{our_protocol}};
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

asio::awaitable<net::WebSocket::Read> read_word(net::WebSocket& end) {
    std::array<char, 16 * 1024> room;
    while (true) {
        auto got = co_await end.read(asio::buffer(room));
        if (got.kind != Kind::data) co_return got;
    }
}

std::string handshake(std::string_view path, std::string_view more, std::string_view version) {
    return "GET " + std::string{path} + " " + std::string{version} +
           "\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
           std::string{more} + "\r\n";
}

std::string frame(unsigned first, std::string_view payload, std::optional<std::size_t> size) {
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

}  // namespace ghost::test
