// RFC 9457 problem documents, as every error leaves the daemon.
#pragma once

#include "net/http.hpp"

#include <boost/json/object.hpp>

#include <string_view>

namespace ghost::net {

// {type: "urn:ghost:problem:<code>", title, status, detail, code, request_id, ...members}
[[nodiscard]] Response problem(unsigned status, std::string_view code, std::string_view title, std::string_view detail,
                               std::string_view request_id, boost::json::object members = {});

}  // namespace ghost::net
