#include "heartbeat/https_core.hpp"

#include "net/tls.hpp"
#include "net/url.hpp"

#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <charconv>
#include <utility>

namespace ghost::heartbeat {
namespace asio = boost::asio;
namespace json = boost::json;

std::string_view name_of(Call call) noexcept {
    switch (call) {
        case Call::enroll: return "enroll";
        case Call::renew: return "certificate";
        case Call::session: return "session";
        case Call::heartbeat: return "heartbeat";
        case Call::facts: return "facts";
        case Call::leave: return "session";
    }
    return "heartbeat";
}

net::ClientRequest request_of(const CoreCall& call, const std::string& base_path) {
    net::ClientRequest request;
    request.method = call.call == Call::session ? net::Method::put
                     : call.call == Call::leave ? net::Method::del
                                                : net::Method::post;
    request.target = call.call == Call::enroll ? base_path + "/v1/agents/enroll"
                                               : fmt::format("{}/v1/agents/{}/{}", base_path,
                                                             net::percent_encode(call.agent_id), name_of(call.call));
    if (call.call != Call::leave) request.body = json::serialize(call.body);
    request.headers.set("Accept", "application/json");
    request.timeout = call.timeout;
    request.connect_timeout = HttpsCore::connect_limit;
    request.max_body = HttpsCore::max_answer;
    return request;
}

std::optional<std::chrono::seconds> retry_after_in(const net::Headers& headers) {
    const auto text = headers.find("Retry-After");
    if (!text) return std::nullopt;
    std::int64_t value = 0;
    const auto [end, fault] = std::from_chars(text->data(), text->data() + text->size(), value);
    const bool is_huge = fault == std::errc::result_out_of_range && text->front() != '-';
    if ((fault != std::errc{} && !is_huge) || end != text->data() + text->size() || value < 0) return std::nullopt;
    return is_huge ? std::chrono::seconds::max() : std::chrono::seconds{value};
}

base::Result<void> HttpsCore::use(Credentials credentials, std::optional<std::string> root) {
    auto trusted = std::move(root).value_or(root_);
    auto ca = trusted;
    if (!credentials.ca.empty()) ca += "\n" + credentials.ca;
    const bool enrolled = !credentials.certificate.empty();
    auto tls = net::make_client_tls(net::TlsTexts{.certificate = credentials.certificate,
                                                  .key = enrolled ? credentials.key : std::string{},
                                                  .ca = std::move(ca)});
    if (!tls) return base::fail(tls.error());
    root_ = std::move(trusted);
    tls_ = std::move(*tls);
    client_.reset();
    return {};
}

asio::awaitable<base::Result<CoreAnswer>> HttpsCore::send(CoreCall call) {
    const auto url = net::parse_url(call.url);
    if (!url || url->scheme != "https")
        co_return base::fail(base::Errc::source_unavailable, "Core's address is no https:// URL");
    if (tls_ == nullptr) co_return base::fail(base::Errc::internal, "no TLS is set up for Core");
    const auto origin = net::authority_of(*url);
    if (client_ == nullptr || origin_ != origin) {
        client_ = net::make_client(net::HttpsPeer{.host = url->host, .port = url->port, .tls = tls_});
        origin_ = origin;
    }
    auto path = url->target.substr(0, url->target.find('?'));
    while (path.ends_with('/')) path.pop_back();
    const auto client = client_;
    auto response = co_await client->send(request_of(call, path));
    if (!response) co_return base::fail(std::move(response).error());
    co_return CoreAnswer{.status = response->status,
                         .retry_after = retry_after_in(response->headers),
                         .body = std::move(response->body)};
}

}  // namespace ghost::heartbeat
