// From an Address to a connection.
#pragma once

#include "agent/cli/errors.hpp"
#include "agent/cli/invocation.hpp"
#include "net/client.hpp"

#include <expected>
#include <string>

namespace ghost::cli {

// Nothing is connected yet. Fails when certificate, key or CA can't be read or don't fit.
[[nodiscard]] std::expected<net::Peer, Failure> peer_at(const Address& address);

// Why connecting to `path` may have failed.
[[nodiscard]] SocketState look_at_socket(const std::string& path);

}  // namespace ghost::cli
