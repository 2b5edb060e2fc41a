// An answer as text for standard output, in the format that was asked for.
#pragma once

#include "agent/cli/invocation.hpp"
#include "base/clock.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <string>

namespace ghost::cli {

// All end with a newline unless empty. Nothing that came from an agent can drive the terminal.
[[nodiscard]] std::string to_json_text(const boost::json::value& value);  // indented by two
[[nodiscard]] std::string to_yaml_text(const boost::json::value& value);

[[nodiscard]] std::string to_json_line(const boost::json::value& value);  // in one line

[[nodiscard]] std::string render_one(const boost::json::object& item, View view, Format format, base::Wall now);
// JSON and YAML: one array of all pages' items. Names: one a line.
[[nodiscard]] std::string render_list(const boost::json::array& items, View view, Format format, base::Wall now);

// One of many that come one after the other, in a format for scripts: JSON as one line, YAML as a document of its own.
[[nodiscard]] std::string render_next(const boost::json::object& item, View view, Format format);

// The name of a VM or image, the id of an operation, the path or name of an orphan.
[[nodiscard]] std::string name_of(const boost::json::object& item, View view);

}  // namespace ghost::cli
