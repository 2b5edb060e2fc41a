#include "net/problem.hpp"

#include <boost/json/serialize.hpp>

#include <string>

namespace ghost::net {

Response problem(unsigned status, std::string_view code, std::string_view title, std::string_view detail,
                 std::string_view request_id, boost::json::object members) {
    boost::json::object document{{"type", "urn:ghost:problem:" + std::string{code}},
                                 {"title", title},
                                 {"status", status},
                                 {"detail", detail},
                                 {"code", code},
                                 {"request_id", request_id}};
    for (auto& member : members) document.insert_or_assign(member.key(), std::move(member.value()));
    Response response{
        .status = status, .body = boost::json::serialize(document), .content_type = "application/problem+json"};
    response.headers.set("Cache-Control", "no-store");
    return response;
}

}  // namespace ghost::net
