// Ports as people write them.
#pragma once

#include "agent/cli/invocation.hpp"

#include <boost/json/object.hpp>

#include <string>
#include <string_view>
#include <utility>

namespace ghost::cli {

// "8080:80", "0.0.0.0:8080:80", "[::1]:8080:80", "localhost:0:22". Without an address: 127.0.0.1. `option`: as the
// usage fault names where it stands.
[[nodiscard]] PortForward port_forward_of(std::string_view option, const std::string& text);
// "5901", "127.0.0.1:5901": where to listen, on this machine only.
[[nodiscard]] PortForward loopback_of(std::string_view option, const std::string& text);
// 1 to 65535.
[[nodiscard]] std::uint16_t port_of(std::string_view option, const std::string& text);

// "web=8080:80", "dns=0.0.0.0:53:53/udp", "web=tailscale:8080:80": a name and an entry of a VM's spec.forwards.
[[nodiscard]] std::pair<std::string, boost::json::object> lasting_forward_of(std::string_view option,
                                                                             const std::string& text);

}  // namespace ghost::cli
