// The query of a request's target.
#pragma once

#include <string>
#include <string_view>

namespace ghost::cli {

// Appends ?name=value or &name=value, the value encoded.
void add_query(std::string& target, std::string_view name, std::string_view value);

}  // namespace ghost::cli
