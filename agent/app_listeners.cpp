// Which addresses the agent listens on, and who is served there.
#include "agent/app.hpp"
#include "agent/config/config_values.hpp"
#include "net/problem.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

net::TcpEndpoint endpoint_of(const std::string& key, const std::string& address) {
    auto endpoint = net::parse_tcp_endpoint(address);
    if (!endpoint) throw StartFault{fmt::format("{}: {}", key, endpoint.error().detail)};
    return std::move(*endpoint);
}

}  // namespace

void App::listen(std::string_view key, const net::Endpoint& endpoint, net::TlsContext tls, net::Handler handler) {
    const bool secure = tls != nullptr;
    auto listener = s_.server.listen(endpoint, std::move(tls), std::move(handler));
    if (!listener) throw StartFault{fmt::format("{}: {}", key, listener.error().detail)};
    if (secure) tls_listeners_.push_back(*listener);
    s_.log.info("listening", {{"address", (*listener)->address()}, {"tls", secure}});
}

void App::open_listeners() {
    if (!config_.api.socket.empty())
        listen("api.socket", net::UnixEndpoint{config_.api.socket, 0660, config_.api.socket_group}, nullptr, api_);
    open_api_listeners();
    open_health_listener();
    open_metrics_listener();
}

void App::open_api_listeners() {
    if (config_.api.listen_addr.empty()) return;
    if (!config_.api.tls.complete()) {
        tls_fault_ =
            "no certificates are configured (api.tls_cert, api.tls_key, api.tls_ca): only the Unix socket serves";
        return;
    }
    auto tls = load_tls(config_);
    if (!tls) throw StartFault{"api.tls_cert, api.tls_key, api.tls_ca: " + tls.error().detail};
    if (tailnet_listeners_.wanted()) tailnet_listeners_.serve(*tls, api_);
    for (const auto& address : config_.api.listen_addr)
        if (!parse_tailnet_port(address))
            listen("api.listen_addr", endpoint_of("api.listen_addr", address), *tls, api_);
}

void App::open_health_listener() {
    const auto& address = config_.health.listen_addr;
    if (address.empty() || std::ranges::find(config_.api.listen_addr, address) != config_.api.listen_addr.end()) return;
    const auto endpoint = endpoint_of("health.listen_addr", address);
    if (!net::is_loopback(endpoint))
        throw StartFault{"health.listen_addr: plain HTTP is served on loopback only; use the API's address"};
    listen("health.listen_addr", endpoint, nullptr, [this](net::Request request) -> asio::awaitable<net::Response> {
        if (!api::is_health_path(request.path, config_.health.path))
            co_return net::problem(404, "not_found", "Not found", "only the health paths are served here",
                                   request.context.request_id);
        co_return co_await api_(std::move(request));
    });
}

void App::open_metrics_listener() {
    if (!config_.metrics.enabled) return;
    const auto endpoint = endpoint_of("metrics.listen_addr", config_.metrics.listen_addr);
    net::TlsContext tls;
    if (!net::is_loopback(endpoint)) {
        auto made = load_tls(config_);
        if (!made) throw StartFault{"metrics.listen_addr: off loopback it needs TLS: " + made.error().detail};
        if (*made == nullptr) throw StartFault{"metrics.listen_addr: off loopback it needs TLS: set the api.tls_ keys"};
        tls = std::move(*made);
    }
    listen("metrics.listen_addr", endpoint, tls, metrics_handler());
}

net::Handler App::metrics_handler() {
    return [this](net::Request request) -> asio::awaitable<net::Response> {
        const auto& id = request.context.request_id;
        if (request.path != config_.metrics.path)
            co_return net::problem(404, "not_found", "Not found", "metrics are at " + config_.metrics.path, id);
        if (request.method != net::Method::get && request.method != net::Method::head) {
            auto refused = net::problem(405, "method_not_allowed", "Method not allowed", "GET it", id);
            refused.headers.set("Allow", "GET, HEAD");
            co_return refused;
        }
        const auto endpoint = net::parse_tcp_endpoint(config_.metrics.listen_addr);
        if (!(endpoint && net::is_loopback(*endpoint)) && !request.context.who.admin)
            co_return net::problem(401, "unauthenticated", "Who are you?", "a client certificate is needed", id);
        Metrics::Now now;
        for (const auto& [vm_id, vm] : index_.all()) {
            now.vms_managed += vm.managed ? 1 : 0;
            now.vms_running += is_running(vm) ? 1 : 0;
        }
        now.operations_unfinished = operations_.unfinished();
        now.connections = s_.server.connections();
        now.hypervisor_connected = s_.hypervisor.link().connected;
        now.log_records_dropped = s_.log.dropped();
        now.orphans = orphans_.known();
        now.last_event = events_.last_id();
        const auto store = s_.store.health();
        now.state_sound = store.loss.empty() && store.fault.empty() && store.reserve;
        now.streams.assign(streams_.figures().begin(), streams_.figures().end());
        now.host = load_watch_.now();
        now.lanes = s_.hypervisor.lanes();
        now.core = core_metrics();
        net::Response response;
        response.content_type = "text/plain; version=0.0.4; charset=utf-8";
        response.body = metrics_.expose(now);
        co_return response;
    };
}

}  // namespace ghost::agent
