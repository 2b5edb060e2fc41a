// What this host is called, and what its owner keeps.
#pragma once

#include "agent/config/config.hpp"
#include "agent/host/capacity.hpp"

#include <string>

namespace ghost::agent {

[[nodiscard]] std::string node_name(const Config& config);  // as configured, else the host's
[[nodiscard]] Reserve reserve_of(const Config& config);

}  // namespace ghost::agent
