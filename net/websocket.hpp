// WebSockets (RFC 6455) on our connections: the end that a server's handler
// gets, and the one that a client opens.
#pragma once

#include "base/error.hpp"
#include "net/client.hpp"
#include "net/http.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::net {

// Of RFC 6455, section 7.4.1; 4000 to 4999 are the application's.
enum class CloseCode : std::uint16_t {
    normal = 1000,
    going_away = 1001,
    protocol_error = 1002,
    none = 1005,  // the peer gave none; never sent
    policy_violation = 1008,
    too_big = 1009,
    internal_error = 1011,
    try_again_later = 1013,
};

// One end of a connection that is open. A read and a write may be under way at once, each in a coroutine of its own.
// The peer is pinged while nothing comes; one that says nothing for `silence` although it is listened to, and nothing
// waits to be written to it, is taken for gone. A peer that doesn't read holds up its writer for as long as it likes.
class WebSocket {
public:
    static constexpr std::chrono::seconds ping_interval{20};
    static constexpr std::chrono::seconds silence{60};
    static constexpr std::size_t first_read = 1536;    // bytes of a message that its first read gives at most
    static constexpr std::size_t longest_text = 4096;  // bytes of a text message; a longer one is a protocol error

    enum class Kind : std::uint8_t {
        data,     // `bytes` of a binary message, or of part of one, are in the room
        text,     // a whole text message, in `text`
        closed,   // the peer said goodbye: `code` and `text`, its reason
        broken,   // the connection ended without a word, or spoke no WebSocket
        stopped,  // by stop(): the program leaves; say goodbye
    };
    struct Read {
        Kind kind = Kind::broken;
        std::size_t bytes = 0;  // may be 0: an empty message
        std::string text = {};
        std::uint16_t code = 0;
        bool more = false;  // data: this was not the message's last
    };

    virtual ~WebSocket() = default;
    // What comes next; after closed, broken or stopped nothing does. One that is cancelled leaves nothing to do but to
    // close.
    [[nodiscard]] virtual boost::asio::awaitable<Read> read(boost::asio::mutable_buffer room) = 0;
    // One message; waits until the connection has taken it. False: the connection is gone, or stop() was called.
    [[nodiscard]] virtual boost::asio::awaitable<bool> write(boost::asio::const_buffer bytes) = 0;
    [[nodiscard]] virtual boost::asio::awaitable<bool> write_text(std::string text) = 0;
    // Says goodbye and waits a little for the peer's. `reason`: at most 123 bytes of UTF-8, cut if it is longer. A read
    // under way ends; not beside a write.
    [[nodiscard]] virtual boost::asio::awaitable<void> close(std::uint16_t code, std::string reason) = 0;
    // A read under way, and the next ones, end with `stopped`; a write under way fails.
    virtual void stop() noexcept = 0;
    virtual void abort() noexcept = 0;  // closes at once; what is under way fails
    // The subprotocol that was agreed on; empty: none.
    [[nodiscard]] virtual const std::string& protocol() const noexcept = 0;
};

// ---- Server's end

// Whether the request asks to become a WebSocket, and correctly. Errors: upgrade_required (it doesn't ask),
// validation_failed (it asks, and wrongly; says what).
[[nodiscard]] base::Result<void> asks_for_websocket(const Request& request);
// The answer that turns the connection into a WebSocket, which `serve` then has until it returns. Of the subprotocols
// that the client offers, the first of `protocols` that is among them is agreed on; none is no fault.
[[nodiscard]] Response websocket_reply(const Request& request, std::initializer_list<std::string_view> protocols,
                                       std::function<boost::asio::awaitable<void>(WebSocket&)> serve);

// ---- Client's end

struct WebSocketRequest {
    std::string target;  // "/v1/vms/web/console?force=true"
    Headers headers = {};
    std::string protocol = {};  // offered; empty: none
    std::chrono::milliseconds timeout{30'000};
    std::chrono::milliseconds ping_interval = WebSocket::ping_interval;
    std::chrono::milliseconds silence = WebSocket::silence;
};
// What the server answered when it didn't agree.
struct WebSocketRefusal {
    base::Error error;                          // as Client's errors; of an answer: source_unavailable
    std::optional<ClientResponse> answer = {};  // its body is at most 64 KiB of it
};
[[nodiscard]] boost::asio::awaitable<std::expected<std::unique_ptr<WebSocket>, WebSocketRefusal>> open_websocket(
    const Peer& peer, WebSocketRequest request);

}  // namespace ghost::net
