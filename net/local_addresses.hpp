// The addresses under which this machine may be reached.
#pragma once

#include <string>
#include <vector>

namespace ghost::net {

// Numeric, of global scope (private ones are), on interfaces that are up and aren't guests': no loopback, no
// link-local. Those of interfaces with a default route first, IPv4 before IPv6, in order, each once, at most 16. Empty
// also when they can't be read.
[[nodiscard]] std::vector<std::string> local_addresses();

}  // namespace ghost::net
