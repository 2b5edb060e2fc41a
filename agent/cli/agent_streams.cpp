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
    co_return std::unexpected{refusal.answer ? failure_of_answer(*refusal.answer, target)
                                             : failure_of_connection(refusal.error, address_)};
}

}  // namespace ghost::cli
