// From an Address to a connection.
#pragma once

#include "agent/cli/errors.hpp"
#include "agent/cli/invocation.hpp"
#include "net/client.hpp"

#include <expected>
#include <memory>
#include <string>

namespace ghost::cli {

// Nothing is connected yet. Fails when certificate, key or CA can't be read or don't fit.
[[nodiscard]] std::expected<std::unique_ptr<net::Client>, Failure> open_client(const Address& address);

// Why connecting to `path` may have failed.
[[nodiscard]] SocketState look_at_socket(const std::string& path);

}  // namespace ghost::cli
