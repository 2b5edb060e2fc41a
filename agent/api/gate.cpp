#include "agent/api/origin.hpp"
#include "agent/api/problem.hpp"
#include "agent/api/routes.hpp"

#include <memory>
#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace {

bool is_change(net::Method method) {
    return method == net::Method::post || method == net::Method::put || method == net::Method::patch ||
           method == net::Method::del;
}

// Of somebody unknown: its route asks for the ticket before all else.
bool brings_ticket(const Gate& gate, const net::Request& request) {
    return request.context.who.kind == base::Principal::Kind::anonymous && request.query_value("ticket") &&
           takes_ticket(request.method, gate.router.pattern_of(request.method, request.path));
}

asio::awaitable<net::Response> pass(const Gate& gate, net::Request request) {
    const auto& who = request.context.who;
    if (!is_health_path(request.path, gate.health_path) && !brings_ticket(gate, request)) {
        if (who.kind == base::Principal::Kind::anonymous)
            co_return to_problem({base::Errc::unauthenticated, "a client certificate of this agent's CA is needed"},
                                 request.context);
        if (!who.admin)
            co_return to_problem({base::Errc::forbidden, who.text() + " is neither root nor in the socket's group"},
                                 request.context);
    }
    if (is_change(request.method) && !from_own_page(request))
        co_return to_problem({base::Errc::forbidden, "a page of another origin may change nothing here"},
                             request.context);
    if (is_change(request.method) && gate.draining())
        co_return to_problem({base::Errc::draining, "the agent is stopping"}, request.context);
    if (!is_change(request.method)) co_return co_await gate.router.serve(std::move(request));
    const net::Handler serve = [&router = gate.router](net::Request r) { return router.serve(std::move(r)); };
    co_return co_await gate.idempotency.handle(std::move(request), serve);
}

asio::awaitable<net::Response> measured(std::shared_ptr<const Gate> gate, net::Request request) {
    const auto started = gate->clock.now();
    const auto method = request.method;
    const auto route = std::string{gate->router.pattern_of(method, request.path)};
    const auto path = request.path;
    const auto context = request.context;
    auto response = co_await pass(*gate, std::move(request));
    const auto took = gate->clock.now() - started;
    gate->measure(method, route, response.status, took);
    // Reads that went well come by the thousand; all else is told.
    const bool plain = !is_change(method) && response.status < 400;
    const auto level = plain ? base::Level::debug : base::Level::info;
    if (gate->log.enabled(level))
        gate->log.write(level, "request",
                        {{"method", net::name_of(method)},
                         {"path", path},
                         {"status", response.status},
                         {"ms", std::chrono::duration_cast<std::chrono::milliseconds>(took).count()},
                         {"request_id", context.request_id},
                         {"traceparent", context.traceparent},
                         {"by", context.who.text()}});
    co_return response;
}

}  // namespace

net::Handler make_gate(Gate gate) {
    // No coroutine itself: what it starts owns the gate and may outlive the handler.
    return [shared = std::make_shared<const Gate>(std::move(gate))](net::Request request) {
        return measured(shared, std::move(request));
    };
}

}  // namespace ghost::agent::api
