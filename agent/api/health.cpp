#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"

#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace json = boost::json;

bool is_health_path(std::string_view path, std::string_view configured) {
    return path == "/health" || path == configured || path == "/ready" || path == "/live";
}

void add_health_routes(net::Router& router, Health& health, std::function<std::string()> ready,
                       const std::string& path) {
    const auto full = [&health](net::Request r) -> asio::awaitable<net::Response> {
        auto report = health.report(r.context.who.admin);
        co_return json_reply(report.healthy ? 200 : 503, std::move(report.document));
    };
    router.add(net::Method::get, "/health", full);
    if (path != "/health") router.add(net::Method::get, path, full);
    router.add(net::Method::get, "/ready",
               [&health, ready = std::move(ready)](net::Request r) -> asio::awaitable<net::Response> {
                   const auto reason = ready();
                   auto document = health.report(r.context.who.admin).document;
                   // Ready is a question of its own: degraded checks don't keep work away.
                   if (!reason.empty())
                       document["status"] = "unhealthy";
                   else if (document["status"] == "unhealthy")
                       document["status"] = "degraded";
                   if (!reason.empty() && r.context.who.admin) document["reason"] = reason;
                   co_return json_reply(reason.empty() ? 200 : 503, std::move(document));
               });
    // Whoever reads this was answered by the loop: it turns.
    router.add(net::Method::get, "/live", [&health](net::Request) -> asio::awaitable<net::Response> {
        auto document = health.report(false).document;
        document["status"] = "healthy";
        document["checks"] = json::object{};
        co_return json_reply(200, std::move(document));
    });
}

}  // namespace ghost::agent::api
