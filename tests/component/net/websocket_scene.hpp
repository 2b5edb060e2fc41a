// A server whose handlers are WebSockets' ends, and what tests say to them.
#pragma once

#include "net/websocket.hpp"
#include "tests/component/net/three_ways.hpp"
#include "tests/component/net/wire.hpp"

#include <boost/asio/awaitable.hpp>
#include <catch2/catch.hpp>

#include <atomic>
#include <cstddef>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::test {

using Kind = net::WebSocket::Kind;

inline constexpr std::string_view our_protocol = "ghost.stream.v1";

// Pings and loses patience before a test does.
[[nodiscard]] net::ServerLimits impatient();
[[nodiscard]] std::string patterned(std::size_t size, std::size_t from = 0);

// What the server's ends do, by path: /echo sends back what comes; /flood sends without an end and drops what comes;
// /stall reads and writes nothing until `release`; /throw fails; /bye says goodbye with 4000 "idle for too long";
// /deaf goes on after it was told to stop. What they meet is noted.
class Ends final : public ThreeWays {
public:
    explicit Ends(net::ServerLimits limits = quick_limits());
    ~Ends() { end(); }
    Ends(const Ends&) = delete;
    Ends& operator=(const Ends&) = delete;

    std::vector<std::string> noted();
    bool has_noted(const std::string& what);

    std::atomic<std::size_t> received{0};
    std::atomic<std::size_t> sent{0};
    std::atomic<int> serving{0};

private:
    boost::asio::awaitable<net::Response> answer(net::Request request);
    boost::asio::awaitable<void> serve(net::WebSocket& end, std::string which);
    boost::asio::awaitable<void> flood(net::WebSocket& end);
    boost::asio::awaitable<void> send_on_and_on(net::WebSocket& end);
    boost::asio::awaitable<void> echo(net::WebSocket& end, bool deaf, bool silent = false);
    void note(std::string what);

    std::mutex mutex_;
    std::vector<std::string> notes_;
};

[[nodiscard]] net::WebSocketRequest to(std::string target);

// Runs `scene` with an open WebSocket, on the loop.
template <class Scene>
void with(Ends& ends, const net::Peer& peer, net::WebSocketRequest request, Scene scene) {
    const auto play = [&]() -> boost::asio::awaitable<std::string> {
        auto opened = co_await net::open_websocket(peer, request);
        if (!opened) co_return opened.error().error.detail;
        co_await scene(**opened);
        co_return "played";
    };
    CHECK(ends.server.await(play()) == "played");
}

[[nodiscard]] boost::asio::awaitable<std::string> read_bytes(net::WebSocket& end, std::size_t count);
// The first that isn't data.
[[nodiscard]] boost::asio::awaitable<net::WebSocket::Read> read_word(net::WebSocket& end);

// ---- By hand

[[nodiscard]] std::string handshake(std::string_view path, std::string_view more = {},
                                    std::string_view version = "HTTP/1.1");
// A client's frame, masked with zeroes; `size`: what its head says.
[[nodiscard]] std::string frame(unsigned first, std::string_view payload, std::optional<std::size_t> size = {});
[[nodiscard]] Wire raw(Ends& ends, std::string_view path);
[[nodiscard]] std::string close_of(unsigned code, std::string_view reason);

inline constexpr unsigned binary_message = 0x82;
inline constexpr unsigned text_message = 0x81;

}  // namespace ghost::test
