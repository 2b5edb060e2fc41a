// Reading what an agent sent: a member that is missing or of another type is
// empty, never a fault, so that an older ghostctl shows a newer agent's answers.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace ghost::cli {

// Depth and (by the client) size are bounded. nullopt for what isn't JSON.
[[nodiscard]] std::optional<boost::json::value> parse_document(std::string_view text);

[[nodiscard]] std::string to_text(const boost::json::value& value);  // a string bare, all else as JSON
[[nodiscard]] std::optional<double> to_number(const boost::json::value& value);

[[nodiscard]] const boost::json::object* object_at(const boost::json::object& object, std::string_view key);
[[nodiscard]] const boost::json::array* array_at(const boost::json::object& object, std::string_view key);
[[nodiscard]] std::string text_at(const boost::json::object& object, std::string_view key);
[[nodiscard]] std::string text_at(const boost::json::object& object, std::string_view key, std::string_view inner);
[[nodiscard]] std::optional<double> number_at(const boost::json::object& object, std::string_view key);
[[nodiscard]] std::optional<bool> bool_at(const boost::json::object& object, std::string_view key);

// An empty object when there is none.
[[nodiscard]] const boost::json::object& part(const boost::json::object& object, std::string_view key);

}  // namespace ghost::cli
