#include "tests/fakes/memory_core_link.hpp"

#include "base/cancelled.hpp"
#include "heartbeat/https_core.hpp"
#include "net/x509.hpp"

#include <boost/asio/this_coro.hpp>

#include <optional>

namespace ghost::fakes {
namespace asio = boost::asio;

net::Request request_at_core(const heartbeat::CoreCall& call) {
    auto out = heartbeat::request_of(call, "");
    net::Request request;
    request.method = out.method;
    request.path = std::move(out.target);
    request.body = std::move(out.body);
    request.headers = std::move(out.headers);
    return request;
}

base::Result<void> MemoryCoreLink::use(heartbeat::Credentials credentials, std::optional<std::string>) {
    if (!credentials.certificate.empty())
        if (auto pair = net::check_pair(credentials.certificate, credentials.key); !pair && shown.empty()) return pair;
    credentials_ = std::move(credentials);
    return {};
}

asio::awaitable<base::Result<heartbeat::CoreAnswer>> MemoryCoreLink::send(heartbeat::CoreCall call) {
    co_await asio::this_coro::throw_if_cancelled(false);
    ++sent_;
    if (way == Way::refused)
        co_return base::fail(base::Errc::source_unavailable, "cannot connect to " + call.url + ": Connection refused");
    if (way == Way::silent) {
        co_await clock_.sleep_for(call.timeout + std::chrono::seconds{60});
        co_return base::fail(base::Errc::cancelled);
    }
    const auto request = request_at_core(call);
    FakeCore::Caller caller{.certificate = shown};
    if (caller.certificate.empty() && !credentials_.certificate.empty()) {
        const auto facts = net::read_certificate(credentials_.certificate);
        if (facts) caller = {facts->common_name, facts->not_after < clock_.wall()};
    }
    if (!co_await clock_.sleep_for(latency) || dead()) co_return base::fail(base::Errc::cancelled);
    auto answered = core_.serve(request, caller);
    if (served) served(call, answered);
    if (!co_await clock_.sleep_for(answered.delay + latency)) co_return base::fail(base::Errc::cancelled);
    if (!answered.response || answered.cut_after)
        co_return base::fail(base::Errc::source_unavailable,
                             "the connection was closed before the answer was complete");
    co_return heartbeat::CoreAnswer{answered.response->status, heartbeat::retry_after_in(answered.response->headers),
                                    std::move(answered.response->body)};
}

}  // namespace ghost::fakes
