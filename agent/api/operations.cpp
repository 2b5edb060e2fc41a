#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"

#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace {

net::Response list(const OperationService& operations, EventLog& events, const net::Request& request) {
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
        items.push_back(to_summary(*op));
    }
    return list_reply(std::move(items), next, events.place_of_list());
}

asio::awaitable<net::Response> read(OperationService& operations, net::Request request) {
    const auto wait = read_wait(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    const auto id = request.params.at("op");
    const auto op = co_await operations.wait(id, *wait);
    if (!op) co_return to_problem({base::Errc::not_found, "no operation " + id}, request.context);
    co_return json_reply(200, to_resource(*op));
}

asio::awaitable<net::Response> cancel(const Answers& answers, net::Request request) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    if (const auto body = empty_body(request); !body) co_return to_problem(body.error(), request.context);
    const auto id = request.params.at("op");
    if (request.context.dry_run) {
        const auto could = answers.operations.cancellable(id);
        if (!could) co_return to_problem(could.error(), request.context);
        auto preview = std::make_shared<Operation>(**could);
        preview->preview = Preview{{"cancel the operation and undo what it did"}, {}};
        co_return co_await answers.accepted(OperationService::Ptr{preview}, *wait, request.context);
    }
    const auto cancelled = answers.operations.cancel(id);
    if (!cancelled) co_return to_problem(cancelled.error(), request.context);
    if (const auto kept = co_await answers.operations.remember(request.context.idempotency, id); !kept)
        co_return to_problem(kept.error(), request.context);
    co_return co_await answers.cancelled(*cancelled, *wait);
}

}  // namespace

void add_operation_routes(net::Router& router, EventLog& events, const Answers& answers) {
    using net::Method;
    auto& operations = answers.operations;
    router.add(Method::get, "/v1/operations", [&operations, &events](net::Request r) -> asio::awaitable<net::Response> {
        co_return list(operations, events, r);
    });
    router.add(Method::get, "/v1/operations/{op}",
               [&operations](net::Request r) { return read(operations, std::move(r)); });
    router.add(Method::post, "/v1/operations/{op}/cancel",
               [&answers](net::Request r) { return cancel(answers, std::move(r)); });
}

}  // namespace ghost::agent::api
