// What handlers answer with.
#pragma once

#include "agent/operations/operation.hpp"
#include "net/http.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include <cstdint>
#include <string>

namespace ghost::agent::api {

[[nodiscard]] net::Response json_reply(unsigned status, const boost::json::value& body);
[[nodiscard]] net::Response not_modified_reply(std::string etag);
// A guest's own bytes are for looking at: nobody is to take them for a page of ours.
void mark_as_guests(net::Response& response);

// The API's operation resource.
[[nodiscard]] boost::json::object to_resource(const Operation& operation);
// As lists and events show it: without what its answer is too long with.
[[nodiscard]] boost::json::object to_summary(const Operation& operation);

// {"items": [...], "next_page_token": ...}. `event`: the one that the list reflects, to watch from.
[[nodiscard]] net::Response list_reply(boost::json::array items, const std::string& next_page_token,
                                       std::uint64_t event);

}  // namespace ghost::agent::api
