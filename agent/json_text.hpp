// JSON as people read it too: Boost.JSON writes 0.5 as 5E-1.
#pragma once

#include <boost/json/value.hpp>

#include <string>

namespace ghost::agent {

// Compact, with the shortest decimal form of each number. Numbers that JSON can't say (NaN, infinities) become null.
[[nodiscard]] std::string json_text(const boost::json::value& value);

}  // namespace ghost::agent
