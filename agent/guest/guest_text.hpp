// What guests and their agents say, made fit to be shown: any bytes as UTF-8,
// programs and paths short, and the reasons of refusals as errors.
#pragma once

#include "base/error.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

struct ReadableText {
    std::string text;
    bool cut = false;  // there was more
};
// At most `most` bytes of UTF-8; what is none becomes U+FFFD. `cut`: the bytes were cut somewhere already, so that a
// character whose end is missing is no fault.
[[nodiscard]] ReadableText readable_text(std::string_view bytes, std::size_t most, bool cut = false);

// At most `most` bytes, and "..." when there is more; never half a character.
[[nodiscard]] std::string shortened(std::string_view utf8, std::size_t most);
// As a shell would be told it, at most `most` bytes.
[[nodiscard]] std::string command_line(const std::vector<std::string>& argv, std::size_t most);

// A guest's refusal (state_conflict) by what its words mean: not_found, forbidden, insufficient_storage, or as it is.
[[nodiscard]] base::Error refusal_of_guest(base::Error said);

}  // namespace ghost::agent
