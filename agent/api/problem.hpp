// Errors as HTTP: the one place that turns a base::Error into a problem document.
#pragma once

#include "base/error.hpp"
#include "net/http.hpp"

namespace ghost::agent::api {

[[nodiscard]] unsigned status_of(base::Errc code) noexcept;
[[nodiscard]] net::Response to_problem(const base::Error& error, const base::Context& context,
                                       boost::json::object members = {});
// The same as a JSON value, as it stands inside an operation.
[[nodiscard]] boost::json::object problem_json(const base::Error& error, std::string_view request_id);

}  // namespace ghost::agent::api
