// One end of a WebSocket on a connection of ours, whatever carries its bytes.
// Beast frames the messages; it is compiled in this header's source alone.
#pragma once

#include "base/clock.hpp"
#include "net/http.hpp"
#include "net/transport.hpp"
#include "net/websocket.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <expected>
#include <memory>
#include <string>

namespace ghost::net {

// How patient an end is with its peer.
struct WebSocketPace {
    std::chrono::milliseconds ping_interval = WebSocket::ping_interval;
    std::chrono::milliseconds silence = WebSocket::silence;
    std::chrono::milliseconds goodbye{2'000};  // for what is still to be written, and for the peer's goodbye
};

// Answers the request that `upgrade` is of, with `headers` besides. nullptr: the connection is gone.
[[nodiscard]] boost::asio::awaitable<std::unique_ptr<WebSocket>> accept_websocket(std::shared_ptr<Transport> transport,
                                                                                  const Upgrade& upgrade,
                                                                                  Headers headers, WebSocketPace pace,
                                                                                  base::Instant deadline);

// Asks for one on a connection that has said nothing yet. `headers` are all that is sent besides WebSocket's own.
// `peer` is its name in sentences. Needs throw_if_cancelled(false).
[[nodiscard]] boost::asio::awaitable<std::expected<std::unique_ptr<WebSocket>, WebSocketRefusal>> ask_for_websocket(
    std::shared_ptr<Transport> transport, std::string peer, WebSocketRequest request, base::Instant deadline);

}  // namespace ghost::net
