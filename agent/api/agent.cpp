#include "agent/api/problem.hpp"
#include "agent/api/routes.hpp"

#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace {

asio::awaitable<net::Response> begin_drain(Drain& drain, const Answers& answers, net::Request request) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    const auto body = read_body(request, true);
    if (!body) co_return to_problem(body.error(), request.context);
    const auto reason = drain_reason_of(*body);
    if (!reason) co_return to_problem(reason.error(), request.context);
    const auto begun = co_await drain.begin(request.context, *reason);
    co_return co_await answers.accepted(begun, *wait, request.context);
}

}  // namespace

void add_agent_routes(net::Router& router, Drain& drain, const Answers& answers) {
    using net::Method;
    router.add(Method::post, "/v1/agent/drain",
               [&drain, &answers](net::Request r) { return begin_drain(drain, answers, std::move(r)); });
    router.add(Method::post, "/v1/agent/undrain", [&drain, &answers](net::Request r) {
        return answers.change(std::move(r), [&drain](const net::Request& of) { return drain.end(of.context); });
    });
}

}  // namespace ghost::agent::api
