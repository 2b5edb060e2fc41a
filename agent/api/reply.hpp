// What handlers answer with.
#pragma once

#include "agent/operations/operation_service.hpp"
#include "net/http.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace ghost::agent::api {

[[nodiscard]] net::Response json_reply(unsigned status, const boost::json::value& body);
[[nodiscard]] net::Response not_modified_reply(std::string etag);

// The API's operation resource.
[[nodiscard]] boost::json::object to_resource(const Operation& operation);

// Answers a change: 202 and the operation, or, when `wait` is over zero, what became of it: `created` with the resource
// (201 for a create), the operation (delete), its problem, or the operation as it stands when the time is up.
struct Shown {
    boost::json::object resource = {};
    std::string etag = {};  // empty: the resource has none
};
struct Ending {
    bool created = false;                                 // 201 instead of 200
    std::function<std::optional<Shown>()> resource = {};  // empty, or nullopt for what is gone: the operation itself
};
[[nodiscard]] boost::asio::awaitable<net::Response> accepted(OperationService& operations,
                                                             base::Result<OperationService::Ptr> begun,
                                                             std::chrono::seconds wait, base::Context context,
                                                             Ending ending);

// {"items": [...], "next_page_token": ...}. `event`: the one that the list reflects, to watch from.
[[nodiscard]] net::Response list_reply(boost::json::array items, const std::string& next_page_token,
                                       std::uint64_t event);

}  // namespace ghost::agent::api
