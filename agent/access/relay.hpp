// Carries bytes between a client's WebSocket and what its stream leads to.
#pragma once

#include "agent/access/far_end.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/notifier.hpp"
#include "net/websocket.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace ghost::agent {

// All of it outlives the relay.
class Relay {
public:
    static constexpr std::size_t buffer = 8 * 1024 - 16;  // bytes, in each direction: what one frame takes
    static constexpr std::chrono::seconds farewell{10};   // for the last message and the goodbye; then it is cut off
    static constexpr std::chrono::seconds second_thought{1};  // for the reason why a message couldn't be written

    struct Terms {
        bool events = false;                          // the client knows them: text is an event, in either direction
        base::Duration idle = std::chrono::hours{4};  // without data either way
        std::string vm = {};                          // whose end is the stream's; empty: the far end tells of it
        // Of data that was carried.
        std::function<void(std::size_t)> from_client = [](std::size_t) {};
        std::function<void(std::size_t)> to_client = [](std::size_t) {};
    };
    Relay(const boost::asio::any_io_executor& executor, net::WebSocket& client, FarEnd& far, VmIndex& vms,
          base::Clock& clock, Terms terms);

    // Until one of the two ends, or has to. The far end is closed then, and the client was told why.
    [[nodiscard]] boost::asio::awaitable<Ending> run();
    // The agent stops.
    void stop() { end({Ending::agent_stops, "the agent is stopping"}); }

private:
    [[nodiscard]] boost::asio::awaitable<void> carry_up();
    [[nodiscard]] boost::asio::awaitable<void> carry_down();
    [[nodiscard]] boost::asio::awaitable<void> look_after();
    [[nodiscard]] boost::asio::awaitable<std::optional<Ending>> take(net::WebSocket::Read got, const char* room);
    [[nodiscard]] std::optional<Ending> take_event(const std::string& text);
    [[nodiscard]] boost::asio::awaitable<bool> give(FarEnd::Got got, const char* room);
    void end(Ending how);

    net::WebSocket& client_;
    FarEnd& far_;
    VmIndex& vms_;
    base::Clock& clock_;
    Terms terms_;
    base::Notifier changed_;
    base::Instant last_data_;
    std::optional<Ending> ending_;
    bool client_gone_ = false;  // it needs no goodbye
    bool carries_down_ = true;  // and says goodbye when it doesn't
};

}  // namespace ghost::agent
