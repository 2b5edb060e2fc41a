#include "heartbeat/json_fields.hpp"

#include "net/text.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include <algorithm>
#include <cmath>

namespace ghost::heartbeat {
namespace json = boost::json;
std::optional<std::string> text_member(const json::object& in, std::string_view key) {
    const auto* value = in.if_contains(key);
    if (value == nullptr || !value->is_string()) return std::nullopt;
    return std::string{value->get_string()};
}

std::optional<std::int64_t> whole_member(const json::object& in, std::string_view key) {
    const auto* value = in.if_contains(key);
    if (value == nullptr || !value->is_number()) return std::nullopt;
    boost::system::error_code ec;
    const auto number = value->to_number<std::int64_t>(ec);
    return ec ? std::nullopt : std::optional{number};
}

std::optional<double> number_member(const json::object& in, std::string_view key) {
    const auto* value = in.if_contains(key);
    if (value == nullptr || !value->is_number()) return std::nullopt;
    const auto number = value->to_number<double>();
    return std::isfinite(number) ? std::optional{number} : std::nullopt;
}

std::optional<bool> flag_member(const json::object& in, std::string_view key) {
    const auto* value = in.if_contains(key);
    return value != nullptr && value->is_bool() ? std::optional{value->get_bool()} : std::nullopt;
}

const json::object* object_member(const json::object& in, std::string_view key) {
    const auto* value = in.if_contains(key);
    return value == nullptr ? nullptr : value->if_object();
}

const json::array* array_member(const json::object& in, std::string_view key) {
    const auto* value = in.if_contains(key);
    return value == nullptr ? nullptr : value->if_array();
}

std::string one_line(std::string_view text, std::size_t limit) {
    if (!net::is_utf8(text)) return {};
    std::string out{text.substr(0, limit)};
    while (!net::is_utf8(out)) out.pop_back();  // cut within a character
    std::ranges::replace_if(out, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, ' ');
    return out;
}

}  // namespace ghost::heartbeat
