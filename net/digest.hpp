// Digests of short texts held in memory.
#pragma once

#include <string>
#include <string_view>

namespace ghost::net {

[[nodiscard]] std::string sha256_hex(std::string_view text);  // 64 hex digits

}  // namespace ghost::net
