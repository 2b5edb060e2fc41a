// Members of a JSON object that may be there.
#pragma once

#include <boost/json/object.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::heartbeat {

// nullopt or nullptr: not there, or of another type.
[[nodiscard]] std::optional<std::string> text_member(const boost::json::object& in, std::string_view key);
[[nodiscard]] std::optional<std::int64_t> whole_member(const boost::json::object& in, std::string_view key);
[[nodiscard]] std::optional<double> number_member(const boost::json::object& in, std::string_view key);
[[nodiscard]] std::optional<bool> flag_member(const boost::json::object& in, std::string_view key);
[[nodiscard]] const boost::json::object* object_member(const boost::json::object& in, std::string_view key);
[[nodiscard]] const boost::json::array* array_member(const boost::json::object& in, std::string_view key);

// What another machine says, fit for a line of a log or a terminal: at most `limit` bytes, without control characters.
[[nodiscard]] std::string one_line(std::string_view text, std::size_t limit = 300);

}  // namespace ghost::heartbeat
