// Base64 (RFC 4648).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ghost::base {

[[nodiscard]] std::string to_base64(std::string_view bytes);
// Its alphabet for URLs (section 5), without padding.
[[nodiscard]] std::string to_base64url(std::string_view bytes);

// As far as `text` is Base64, and no more than `most` bytes.
[[nodiscard]] std::string from_base64(std::string_view text, std::size_t most);

}  // namespace ghost::base
