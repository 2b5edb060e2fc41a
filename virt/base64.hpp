// Base64 (RFC 4648, section 4): bytes as guest agents take and give them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ghost::virt {

[[nodiscard]] std::string to_base64(std::string_view bytes);

// As far as `text` is Base64, and no more than `most` bytes.
[[nodiscard]] std::string from_base64(std::string_view text, std::size_t most);

}  // namespace ghost::virt
