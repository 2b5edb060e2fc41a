// A stream of the agent and a channel, passing on to each other what comes.
#pragma once

#include "agent/cli/byte_channel.hpp"
#include "base/clock.hpp"
#include "base/notifier.hpp"
#include "net/websocket.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace ghost::cli {

// What to do when the channel brings no more.
enum class InputEnd : std::uint8_t {
    tell,   // the other side, and go on with what it sends; without the control protocol: close
    close,  // the stream
    stay,   // only listen from then on
};

struct RelayRules {
    InputEnd input_end = InputEnd::tell;
    std::optional<char> leave_at = {};  // in what the channel brings, this ends it all
    // Control that isn't about the bytes' end. Must not throw.
    std::function<void(const boost::json::object& event)> on_event = {};
};

struct RelayEnd {
    enum class Kind : std::uint8_t {
        closed,  // by the agent: `code` and `reason`
        lost,    // the connection broke without a word
        left,    // by RelayRules::leave_at, the channel's end or a cancellation
    };
    Kind kind = Kind::lost;
    std::uint16_t code = 0;
    std::string reason = {};
};

// At most 64 KiB wait for the agent to take them; then the channel isn't read. All references must outlive it.
class Relay {
public:
    Relay(const boost::asio::any_io_executor& executor, base::Clock& clock, net::WebSocket& socket,
          ByteChannel& channel, RelayRules rules);

    // Once. The socket is closed afterwards.
    [[nodiscard]] boost::asio::awaitable<RelayEnd> run();
    // Sends control, if the agent takes any. Of several that wait to be sent only the last is.
    void tell(const boost::json::object& event);

    static constexpr std::size_t most_waiting = 64 * 1024;
    static constexpr std::size_t piece = 32 * 1024;
    static constexpr std::chrono::seconds farewell{2};  // that who leaves waits for the agent to take the last words

private:
    [[nodiscard]] boost::asio::awaitable<void> receive();
    [[nodiscard]] boost::asio::awaitable<void> collect();
    [[nodiscard]] boost::asio::awaitable<void> send();
    [[nodiscard]] boost::asio::awaitable<void> until_cancelled();
    [[nodiscard]] boost::asio::awaitable<void> say_goodbye();
    void take_event(const std::string& text);

    base::Clock& clock_;
    net::WebSocket& socket_;
    ByteChannel& channel_;
    RelayRules rules_;
    base::Notifier to_send_;  // something is
    base::Notifier room_;     // in waiting_
    base::Notifier never_;
    std::string waiting_;
    std::string event_;  // control to be sent
    bool input_ended_ = false;
    bool output_ended_ = false;  // the agent sends no more
    bool told_end_ = false;
    bool leaving_ = false;
    bool closing_ = false;
    RelayEnd end_;
};

}  // namespace ghost::cli
