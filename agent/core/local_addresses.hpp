// Where this machine is in its networks.
#pragma once

#include <string>
#include <vector>

namespace ghost::agent {

// Of the interfaces that are up, numeric, IPv4 first, at most 64; neither loopback nor link-local. Asks the kernel.
[[nodiscard]] std::vector<std::string> local_addresses();

}  // namespace ghost::agent
