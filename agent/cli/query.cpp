#include "agent/cli/query.hpp"

#include "net/http.hpp"

#include <fmt/format.h>

namespace ghost::cli {

void add_query(std::string& target, std::string_view name, std::string_view value) {
    target += fmt::format("{}{}={}", target.contains('?') ? '&' : '?', name, net::percent_encode(value));
}

}  // namespace ghost::cli
