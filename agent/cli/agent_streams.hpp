// The streams that an agent's API offers as WebSockets, as a seam.
#pragma once

#include "agent/cli/agent_client.hpp"
#include "agent/cli/invocation.hpp"
#include "net/client.hpp"
#include "net/websocket.hpp"

#include <boost/asio/awaitable.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace ghost::cli {

// Beside bytes, its text messages are control: JSON objects with a member "event".
inline constexpr std::string_view stream_protocol = "ghost.stream.v1";

class AgentStreams {
public:
    virtual ~AgentStreams() = default;
    // What the agent refuses is a failure with its reason.
    [[nodiscard]] virtual boost::asio::awaitable<Outcome<std::unique_ptr<net::WebSocket>>> open(std::string target) = 0;
};

// The real one. `address` must outlive it.
class PeerStreams final : public AgentStreams {
public:
    PeerStreams(net::Peer peer, const Address& address) : peer_(std::move(peer)), address_(address) {}

    [[nodiscard]] boost::asio::awaitable<Outcome<std::unique_ptr<net::WebSocket>>> open(std::string target) override;

private:
    net::Peer peer_;
    const Address& address_;
};

}  // namespace ghost::cli
