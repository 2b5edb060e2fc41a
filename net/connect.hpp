// From a peer's name to a socket connected to it.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "net/client.hpp"
#include "net/transport.hpp"

#include <boost/asio/awaitable.hpp>

#include <string>

namespace ghost::net {

// "/run/ghost/agent.sock", "https://host:9092": how sentences name a peer.
[[nodiscard]] std::string describe(const Peer& peer);

// Tries the addresses of a name in turn, each with a fair part of the time. Errors: source_unavailable,
// deadline_exceeded, cancelled; each sentence names the peer. Needs throw_if_cancelled(false).
[[nodiscard]] boost::asio::awaitable<base::Result<StreamSocket>> connect_to(const Peer& peer, base::Instant deadline);

}  // namespace ghost::net
