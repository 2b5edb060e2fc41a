#include "agent/cli/agent_client.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/query.hpp"
#include "agent/cli/transport.hpp"

#include <fmt/format.h>

namespace ghost::cli {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

Outcome<json::object> object_in(const net::ClientResponse& response, std::string_view target) {
    if (response.body.empty()) return json::object{};
    auto document = parse_document(response.body);
    if (document && document->is_object()) return std::move(document->get_object());
    return std::unexpected{Failure{ExitCode::failed,
                                   fmt::format("the answer to {} is not what an agent says", target),
                                   {},
                                   "is that a ghost-agent?"}};
}

}  // namespace

asio::awaitable<Outcome<net::ClientResponse>> AgentClient::exchange(net::ClientRequest request) {
    if (!request.on_body) request.headers.set("Accept", "application/json");
    request.headers.set("User-Agent", "ghostctl/" GHOST_VERSION);
    auto answer = co_await client_.send(std::move(request));
    if (answer) co_return std::move(*answer);
    co_return std::unexpected{failure_of_connection(answer.error(), address_)};
}

asio::awaitable<Outcome<net::ClientResponse>> AgentClient::agreed(net::ClientRequest request) {
    const auto target = request.target;
    auto response = co_await exchange(std::move(request));
    if (!response || response->status / 100 == 2) co_return response;
    co_return std::unexpected{failure_of_answer(*response, target)};
}

asio::awaitable<Outcome<json::object>> AgentClient::send(net::Method method, std::string target, std::string body,
                                                         std::string idempotency_key) {
    net::ClientRequest request;
    request.method = method;
    request.target = target;
    request.body = std::move(body);
    request.headers.set("Idempotency-Key", std::move(idempotency_key));
    request.timeout = patience;
    auto response = co_await agreed(std::move(request));
    if (!response) co_return std::unexpected{std::move(response.error())};
    co_return object_in(*response, target);
}

asio::awaitable<Outcome<json::object>> AgentClient::get(std::string target, std::chrono::seconds allowance) {
    net::ClientRequest request;
    request.target = target;
    request.timeout = patience + allowance;
    auto response = co_await agreed(std::move(request));
    if (!response) co_return std::unexpected{std::move(response.error())};
    co_return object_in(*response, target);
}

asio::awaitable<Outcome<json::object>> AgentClient::health() {
    net::ClientRequest request;
    request.target = "/health";
    request.timeout = patience;
    auto response = co_await exchange(std::move(request));
    if (!response) co_return std::unexpected{std::move(response.error())};
    auto document = parse_document(response->body);
    const bool told = document && document->is_object() && document->get_object().contains("checks");
    if (told && (response->status == 200 || response->status == 503)) co_return std::move(document->get_object());
    co_return std::unexpected{failure_of_answer(response->status, response->body, "", "/health")};
}

asio::awaitable<Outcome<std::string>> AgentClient::last_event() {
    net::ClientRequest request;
    request.method = net::Method::head;
    request.target = events_target;
    request.timeout = patience;
    const auto response = co_await exchange(std::move(request));
    if (!response) co_return std::unexpected{response.error()};
    co_return std::string{response->headers.find("Ghost-Event-Id").value_or("")};
}

asio::awaitable<Outcome<net::ClientResponse>> AgentClient::events(std::string after,
                                                                  std::function<bool(std::string_view)> take) {
    net::ClientRequest request;
    request.target = events_target;
    request.headers.set("Accept", "text/event-stream");
    if (!after.empty()) request.headers.set("Last-Event-ID", std::move(after));
    request.timeout = patience;
    request.on_body = std::move(take);
    co_return co_await exchange(std::move(request));
}

asio::awaitable<Outcome<net::ClientResponse>> AgentClient::download(
    std::string target, std::function<bool(const net::ClientResponse&)> begin,
    std::function<bool(std::string_view)> take) {
    net::ClientRequest request;
    request.target = std::move(target);
    request.timeout = patience;
    request.on_head = std::move(begin);
    request.on_body = std::move(take);
    co_return co_await agreed(std::move(request));
}

asio::awaitable<Outcome<net::ClientResponse>> AgentClient::upload(
    std::string target, std::function<asio::awaitable<base::Result<std::optional<std::string>>>()> next,
    std::optional<std::uint64_t> size) {
    net::ClientRequest request;
    request.method = net::Method::put;
    request.target = std::move(target);
    request.headers.set("Content-Type", "application/octet-stream");
    request.body_source = std::move(next);
    request.body_size = size;
    request.timeout = patience;
    co_return co_await agreed(std::move(request));
}

asio::awaitable<Outcome<Listing>> AgentClient::list(std::string target, bool has_pages) {
    auto first = target;
    if (has_pages) add_query(first, "limit", "1000");
    Listing all;
    std::string token;
    for (std::size_t page = 0; page < most_pages; ++page) {
        net::ClientRequest request;
        request.target = first;
        if (!token.empty()) add_query(request.target, "page_token", token);
        request.timeout = patience;
        auto response = co_await agreed(std::move(request));
        if (!response) co_return std::unexpected{std::move(response.error())};
        auto answer = object_in(*response, target);
        if (!answer) co_return std::unexpected{std::move(answer.error())};
        if (page == 0) all.event_id = response->headers.find("Ghost-Event-Id").value_or("");
        if (const auto* items = array_at(*answer, "items"))
            all.items.insert(all.items.end(), items->begin(), items->end());
        auto following = text_at(*answer, "next_page_token");
        if (following.empty()) co_return all;
        if (following == token) break;
        token = std::move(following);
    }
    co_return std::unexpected{Failure{ExitCode::failed, fmt::format("the pages of {} don't end", target)}};
}

}  // namespace ghost::cli
