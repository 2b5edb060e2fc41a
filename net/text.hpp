// The rules of HTTP's text: tokens, field values, UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace ghost::net {

// Equal without regard to ASCII case.
[[nodiscard]] bool same_token(std::string_view a, std::string_view b) noexcept;
[[nodiscard]] std::string to_lower(std::string_view text);  // ASCII's letters
// RFC 9110's token: a header's or a method's name.
[[nodiscard]] bool is_token(std::string_view text) noexcept;
// Well-formed UTF-8: no overlong form, surrogate, or anything above U+10FFFF.
[[nodiscard]] bool is_utf8(std::string_view text) noexcept;
// A byte below the space, or DEL.
[[nodiscard]] bool has_control(std::string_view text) noexcept;
// [A-Za-z0-9._-]{1,64}
[[nodiscard]] bool is_request_id(std::string_view text) noexcept;
// W3C Trace Context: "00-<32 hex>-<16 hex>-<2 hex>", lower case, ids not all zero; later versions may append parts.
[[nodiscard]] bool is_traceparent(std::string_view text) noexcept;
// Whether a comma-separated field value ("keep-alive, Upgrade") has `token` as a member.
[[nodiscard]] bool list_has(std::string_view list, std::string_view token) noexcept;

}  // namespace ghost::net
