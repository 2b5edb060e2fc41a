#include "agent/cli/json_access.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace ghost::cli {
namespace json = boost::json;

std::optional<json::value> parse_document(std::string_view text) {
    json::parse_options options;
    options.max_depth = 64;
    json::error_code fault;
    auto value = json::parse(text, fault, {}, options);
    return fault ? std::nullopt : std::optional{std::move(value)};
}

std::string to_text(const json::value& value) {
    return value.is_string() ? std::string{value.get_string()} : json::serialize(value);
}

std::optional<double> to_number(const json::value& value) {
    if (value.is_double()) return value.get_double();
    if (value.is_int64()) return static_cast<double>(value.get_int64());
    if (value.is_uint64()) return static_cast<double>(value.get_uint64());
    return std::nullopt;
}

const json::object* object_at(const json::object& object, std::string_view key) {
    const auto* value = object.if_contains(key);
    return value != nullptr ? value->if_object() : nullptr;
}

const json::array* array_at(const json::object& object, std::string_view key) {
    const auto* value = object.if_contains(key);
    return value != nullptr ? value->if_array() : nullptr;
}

std::string text_at(const json::object& object, std::string_view key) {
    const auto* value = object.if_contains(key);
    return value != nullptr && value->is_string() ? std::string{value->get_string()} : std::string{};
}

std::string text_at(const json::object& object, std::string_view key, std::string_view inner) {
    return text_at(part(object, key), inner);
}

std::optional<double> number_at(const json::object& object, std::string_view key) {
    const auto* value = object.if_contains(key);
    return value != nullptr ? to_number(*value) : std::nullopt;
}

std::optional<bool> bool_at(const json::object& object, std::string_view key) {
    const auto* value = object.if_contains(key);
    return value != nullptr && value->is_bool() ? std::optional{value->get_bool()} : std::nullopt;
}

const json::object& part(const json::object& object, std::string_view key) {
    static const json::object none;
    const auto* inner = object_at(object, key);
    return inner != nullptr ? *inner : none;
}

}  // namespace ghost::cli
