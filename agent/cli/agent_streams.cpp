#include "agent/cli/agent_streams.hpp"

#include "agent/cli/transport.hpp"

namespace ghost::cli {
namespace asio = boost::asio;

asio::awaitable<Outcome<std::unique_ptr<net::WebSocket>>> PeerStreams::open(std::string target) {
    net::WebSocketRequest request;
    request.target = target;
    request.headers.set("User-Agent", "ghostctl/" GHOST_VERSION);
    request.protocol = stream_protocol;
    request.timeout = AgentClient::patience;
    auto opened = co_await net::open_websocket(peer_, std::move(request));
    if (opened) co_return std::move(*opened);
    const auto& refusal = opened.error();
    if (!refusal.answer) {
        const auto* local = std::get_if<SocketAddress>(&address_);
        co_return std::unexpected{failure_of_connection(
            refusal.error, address_, local != nullptr ? look_at_socket(local->path) : SocketState::present)};
    }
    co_return std::unexpected{failure_of_answer(refusal.answer->status, refusal.answer->body,
                                                refusal.answer->headers.find("Retry-After").value_or(""), target)};
}

}  // namespace ghost::cli
