// From an Address to a connection.
#pragma once

#include "agent/cli/errors.hpp"
#include "agent/cli/invocation.hpp"
#include "net/client.hpp"

#include <expected>

namespace ghost::cli {

// Nothing is connected yet. Fails when certificate, key or CA can't be read or don't fit.
[[nodiscard]] std::expected<net::Peer, Failure> peer_at(const Address& address);

// No answer came; looks at the socket for the reason.
[[nodiscard]] Failure failure_of_connection(const base::Error& error, const Address& address);

}  // namespace ghost::cli
