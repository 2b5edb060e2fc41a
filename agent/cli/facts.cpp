#include "agent/cli/facts.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/text.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

namespace ghost::cli {
namespace json = boost::json;

std::string fact(std::string_view key, const json::value& value) {
    const auto worded = [](std::string_view name) {
        std::string words{name};
        std::ranges::replace(words, '_', ' ');
        return words;
    };
    if (value.is_object()) {
        std::vector<std::string> parts;
        for (const auto& member : value.get_object()) parts.push_back(fact(member.key(), member.value()));
        return fmt::format("{}: {}", worded(key), fmt::join(parts, ", "));
    }
    if (value.is_array()) {
        std::vector<std::string> parts;
        for (const auto& item : value.get_array()) parts.push_back(to_text(item));
        return fmt::format("{}: {}", worded(key), fmt::join(parts, ", "));
    }
    if (const auto number = to_number(value)) {
        if (key.ends_with("_mib"))
            return fmt::format("{} {}", worded(key.substr(0, key.size() - 4)), human_mib(*number));
        if (key.ends_with("_gib"))
            return fmt::format("{} {}", worded(key.substr(0, key.size() - 4)), human_mib(*number * 1024));
        if (key.ends_with("_bytes"))
            return fmt::format("{} {}", worded(key.substr(0, key.size() - 6)), human_bytes(*number));
        return fmt::format("{} {}", worded(key), human_number(*number));
    }
    return fmt::format("{}: {}", worded(key), to_text(value));
}

}  // namespace ghost::cli
