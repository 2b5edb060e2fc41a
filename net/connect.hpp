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

// The Host header of a request to it.
[[nodiscard]] std::string host_header(const Peer& peer);

// Tries the addresses of a name that the peer's rule allows in turn, each with a fair part of the time. Through a
// proxy, which resolves the name, the socket leads to the peer as well; the rule then judges what the name stands for
// here, if that can be told, and never the proxy. Errors: source_unavailable, address_not_allowed (no address is left),
// deadline_exceeded, cancelled; each sentence names the peer or the proxy. Needs throw_if_cancelled(false).
[[nodiscard]] boost::asio::awaitable<base::Result<StreamSocket>> connect_to(const Peer& peer, base::Instant deadline);

}  // namespace ghost::net
