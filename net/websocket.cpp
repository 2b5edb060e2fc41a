#include "net/websocket.hpp"

#include "net/connect.hpp"
#include "net/text.hpp"
#include "net/transport.hpp"
#include "net/websocket_end.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <utility>
#include <variant>

namespace ghost::net {
namespace {

namespace asio = boost::asio;

constexpr std::size_t key_length = 24;  // 16 bytes in base64

// Whether one of the headers of this name has `token` in its list.
bool lists(const Headers& headers, std::string_view name, std::string_view token) {
    return std::ranges::any_of(
        headers, [&](const auto& header) { return same_token(header.first, name) && list_has(header.second, token); });
}

// Subprotocols' case counts.
bool offers(const Headers& headers, std::string_view protocol) {
    for (const auto& [name, value] : headers) {
        if (!same_token(name, "Sec-WebSocket-Protocol")) continue;
        std::string_view list{value};
        while (true) {
            const auto comma = list.find(',');
            auto each = list.substr(0, comma);
            while (!each.empty() && (each.front() == ' ' || each.front() == '\t')) each.remove_prefix(1);
            while (!each.empty() && (each.back() == ' ' || each.back() == '\t')) each.remove_suffix(1);
            if (each == protocol) return true;
            if (comma == std::string_view::npos) break;
            list.remove_prefix(comma + 1);
        }
    }
    return false;
}

bool is_key(std::string_view text) {
    constexpr std::string_view end = "==";
    return text.size() == key_length && text.ends_with(end) &&
           std::ranges::all_of(text.substr(0, key_length - end.size()), [](char c) {
               return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
                      c == '/';
           });
}

base::Result<void> may_be_sent(const WebSocketRequest& request) {
    const auto no = [](const std::string& what) { return base::fail(base::Errc::validation_failed, what); };
    const bool bad_target = !request.target.starts_with('/') || has_control(request.target) ||
                            request.target.find(' ') != std::string::npos;
    if (bad_target) return no("not a request that can be sent: " + request.target);
    if (!request.protocol.empty() && !is_token(request.protocol)) return no("not a subprotocol: " + request.protocol);
    for (const auto& [name, value] : request.headers)
        if (!is_token(name) || has_control(value)) return no("not a header that can be sent: " + name);
    return {};
}

}  // namespace

base::Result<void> asks_for_websocket(const Request& request) {
    const auto& headers = request.headers;
    if (request.method != Method::get || !lists(headers, "Upgrade", "websocket"))
        return base::fail(base::Errc::upgrade_required, "this is a WebSocket: ask for it with \"Upgrade: websocket\"");
    const auto wrong = [](std::string what) { return base::fail(base::Errc::validation_failed, std::move(what)); };
    if (!lists(headers, "Connection", "Upgrade"))
        return wrong("a request for a WebSocket also has \"Connection: Upgrade\"");
    if (headers.find("Sec-WebSocket-Version") != "13")
        return wrong("WebSockets of version 13 are spoken: \"Sec-WebSocket-Version: 13\"");
    if (!is_key(headers.find("Sec-WebSocket-Key").value_or("")))
        return wrong("Sec-WebSocket-Key is no 16 bytes in base64");
    return {};
}

Response websocket_reply(const Request& request, std::initializer_list<std::string_view> protocols,
                         std::function<asio::awaitable<void>(WebSocket&)> serve) {
    const auto* const agreed =
        std::ranges::find_if(protocols, [&](std::string_view protocol) { return offers(request.headers, protocol); });
    Response response{.status = 101, .content_type = {}};
    response.upgrade = Upgrade{.key = std::string{request.headers.find("Sec-WebSocket-Key").value_or("")},
                               .protocol = std::string{agreed == protocols.end() ? std::string_view{} : *agreed},
                               .serve = std::move(serve),
                               .identity = request.context.who.text()};
    return response;
}

asio::awaitable<std::expected<std::unique_ptr<WebSocket>, WebSocketRefusal>> open_websocket(const Peer& peer,
                                                                                            WebSocketRequest request) {
    using Result = std::expected<std::unique_ptr<WebSocket>, WebSocketRefusal>;
    const bool throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    const auto failed = [](base::Error error) -> Result { return std::unexpected{WebSocketRefusal{std::move(error)}}; };
    const auto deadline = std::chrono::steady_clock::now() + request.timeout;
    Result result = failed({base::Errc::internal, {}});
    if (auto sendable = may_be_sent(request); !sendable) {
        result = failed(std::move(sendable.error()));
    } else if (auto socket = co_await connect_to(peer, deadline); !socket) {
        result = failed(std::move(socket.error()));
    } else {
        const auto* https = std::get_if<HttpsPeer>(&peer);
        const std::shared_ptr<Transport> transport = make_client_transport(
            *std::move(socket), https ? https->tls : nullptr, https ? https->host : std::string{});
        if (auto ready = co_await transport->handshake(deadline); !ready) {
            auto error = std::move(ready.error());
            error.detail = "cannot connect to " + describe(peer) + ": " + error.detail;
            result = failed(std::move(error));
        } else {
            if (!request.headers.find("Host")) request.headers.set("Host", host_header(peer));
            if (!request.headers.find("User-Agent")) request.headers.set("User-Agent", "ghost-agent/" GHOST_VERSION);
            result = co_await ask_for_websocket(transport, describe(peer), std::move(request), deadline);
        }
    }
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return result;
}

}  // namespace ghost::net
