#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"

#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace {

net::Response list(const OperationService& operations, const EventLog& events, const net::Request& request) {
    QueryReader query{request};
    const auto state = query.one_of("state", {"pending", "running", "succeeded", "failed", "cancelled"});
    const auto kind = query.text("kind");
    const auto target = query.text("target");
    const auto page = read_page(query);
    if (const auto read = query.finish(); !read) return to_problem(read.error(), request.context);
    boost::json::array items;
    std::string next;
    for (const auto& op : operations.list()) {
        if (!page.after.empty() && op->id >= page.after) continue;  // newest first, ids grow with time
        if ((state && name_of(op->state) != *state) || (kind && op->kind != *kind)) continue;
        if (target && op->target.id != *target && op->target.name != *target) continue;
        if (items.size() == page.limit) {
            next = page_token(std::string_view{items.back().at("id").as_string()});
            break;
        }
        items.push_back(to_resource(*op));
    }
    return list_reply(std::move(items), next, events.last_id());
}

asio::awaitable<net::Response> read(OperationService& operations, net::Request request) {
    const auto wait = read_wait(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    const auto id = request.params.at("op");
    const auto op = co_await operations.wait(id, *wait);
    if (!op) co_return to_problem({base::Errc::not_found, "no operation " + id}, request.context);
    co_return json_reply(200, to_resource(*op));
}

// However the operation ends, the cancel was done: that it succeeded first, or failed, is told by the operation.
asio::awaitable<net::Response> cancel(OperationService& operations, net::Request request) {
    const auto wait = read_wait(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    if (const auto body = empty_body(request); !body) co_return to_problem(body.error(), request.context);
    const auto cancelled = operations.cancel(request.params.at("op"));
    if (!cancelled) co_return to_problem(cancelled.error(), request.context);
    auto op = *cancelled;
    if (wait->count() > 0) op = co_await operations.wait(op->id, *wait);
    auto response = json_reply(is_terminal(op->state) && wait->count() > 0 ? 200 : 202, to_resource(*op));
    if (response.status == 202) response.headers.set("Location", "/v1/operations/" + op->id);
    co_return response;
}

}  // namespace

void add_operation_routes(net::Router& router, OperationService& operations, const EventLog& events) {
    using net::Method;
    router.add(Method::get, "/v1/operations", [&operations, &events](net::Request r) -> asio::awaitable<net::Response> {
        co_return list(operations, events, r);
    });
    router.add(Method::get, "/v1/operations/{op}",
               [&operations](net::Request r) { return read(operations, std::move(r)); });
    router.add(Method::post, "/v1/operations/{op}/cancel",
               [&operations](net::Request r) { return cancel(operations, std::move(r)); });
}

}  // namespace ghost::agent::api
