// The API's description, built into the program.
#pragma once

#include <boost/json/value.hpp>

#include <string_view>

namespace ghost::agent::api {

[[nodiscard]] std::string_view openapi_yaml();        // the file's text, made by the build
[[nodiscard]] boost::json::value openapi_document();  // the same as JSON

}  // namespace ghost::agent::api
