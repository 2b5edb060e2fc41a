#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"

#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace {

asio::awaitable<net::Response> list(OrphanService& orphans, net::Request request) {
    if (const auto none = no_query(request); !none) co_return to_problem(none.error(), request.context);
    const auto found = co_await orphans.find();
    if (!found) co_return to_problem(found.error(), request.context);
    boost::json::array items;
    for (const auto& orphan : *found) items.push_back(to_resource(orphan));
    co_return json_reply(200, boost::json::object{{"items", std::move(items)}});
}

}  // namespace

void add_orphan_routes(net::Router& router, OrphanService& orphans, const Answers& answers) {
    using net::Method;
    router.add(Method::get, "/v1/orphans", [&orphans](net::Request r) { return list(orphans, std::move(r)); });
    router.add(Method::post, "/v1/orphans/purge", [&orphans, &answers](net::Request r) {
        return answers.change(std::move(r), [&orphans](const net::Request& of) { return orphans.purge(of.context); });
    });
}

}  // namespace ghost::agent::api
