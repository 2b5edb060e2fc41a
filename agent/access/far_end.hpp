// What a client's stream leads to, and how streams end.
#pragma once

#include "agent/vm/vm.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/json/object.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::agent {

// What the client is told when its stream ends: a WebSocket's close code, and a short sentence.
struct Ending {
    enum Code : std::uint16_t {
        finished = 1000,  // the other end ended
        agent_stops = 1001,
        broke_rules = 1008,
        our_fault = 1011,
        idle = 4000,
        vm_stopped = 4001,
        vm_deleted = 4002,
        connection_failed = 4003,  // the guest's
    };
    Code code = finished;
    std::string reason;
};

// Whether a VM that had streams has none any more; `vm` null: it is gone.
[[nodiscard]] std::optional<Ending> ending_of(const Vm* vm);

// The end of a stream that isn't the client's. A read and a write may be under way at once.
class FarEnd {
public:
    virtual ~FarEnd() = default;

    struct Got {
        enum class Kind : std::uint8_t {
            data,   // `bytes` of it are in the room
            event,  // for clients that know events
            ended,  // nothing comes any more
        };
        Kind kind = Kind::ended;
        std::size_t bytes = 0;
        boost::json::object event = {};
        Ending ending = {};
    };
    // Before all else: whether the client knows events.
    virtual void begin(bool /*events*/) {}
    // Until read() will hardly have to wait: only then is room for it needed.
    [[nodiscard]] virtual boost::asio::awaitable<void> ready() { co_return; }
    [[nodiscard]] virtual boost::asio::awaitable<Got> read(boost::asio::mutable_buffer room) = 0;
    // Waits until it has taken all of `bytes`, which the caller keeps, or doesn't want them. A value: the stream ends.
    [[nodiscard]] virtual boost::asio::awaitable<std::optional<Ending>> write(std::string_view bytes) = 0;
    // The client's event. A value: the stream ends.
    [[nodiscard]] virtual std::optional<Ending> take(const boost::json::object& event) = 0;
    // What is under way ends.
    virtual void close() noexcept = 0;
};

}  // namespace ghost::agent
