// A way through an HTTP proxy.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "net/proxy.hpp"
#include "net/transport.hpp"

#include <boost/asio/awaitable.hpp>

#include <string>

namespace ghost::net {

// Asks the proxy at the other end of `socket` to CONNECT to `authority` ("host:443"); then the socket leads there.
// Errors: source_unavailable (with the fact `proxy`, what it answered, when it won't let us through),
// deadline_exceeded, cancelled; each sentence names the proxy, and what it answered. Needs throw_if_cancelled(false).
[[nodiscard]] boost::asio::awaitable<base::Result<void>> open_tunnel(StreamSocket& socket, const Proxy& proxy,
                                                                     const std::string& authority,
                                                                     base::Instant deadline);

}  // namespace ghost::net
