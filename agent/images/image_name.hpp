// How images may be called.
#pragma once

#include <algorithm>
#include <cctype>
#include <string_view>

namespace ghost::agent {

// Letters, digits, '-', '_' and '.', starting with a letter or digit, at most 128 characters.
[[nodiscard]] inline bool is_image_name(std::string_view name) noexcept {
    const auto is_letter_or_digit = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
    if (name.empty() || name.size() > 128 || !is_letter_or_digit(name.front())) return false;
    return std::ranges::all_of(name, [&](char c) { return is_letter_or_digit(c) || c == '-' || c == '_' || c == '.'; });
}

}  // namespace ghost::agent
