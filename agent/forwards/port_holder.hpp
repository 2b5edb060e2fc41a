// Who has a port of this host, by what /proc tells.
#pragma once

#include "agent/vm/vm.hpp"

#include <boost/asio/ip/address.hpp>

#include <cstdint>
#include <string>

namespace ghost::agent {

// "nginx (pid 123)", else "a program of the user www-data", else "another program": processes of others may be hidden
// from us. Reads many small files: not for the loop. `proc`: where they are.
[[nodiscard]] std::string port_holder(Protocol protocol, const boost::asio::ip::address& address, std::uint16_t port,
                                      const std::string& proc = "/proc");

}  // namespace ghost::agent
