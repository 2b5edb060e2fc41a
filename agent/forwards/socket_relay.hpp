// Bytes from one socket to another and back, as they come.
#pragma once

#include "base/clock.hpp"
#include "net/transport.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstddef>
#include <cstdint>

namespace ghost::agent {

inline constexpr std::size_t relay_buffer = 16 * 1024;  // bytes, each way

enum class RelayEnd : std::uint8_t {
    finished,  // both sides have sent all they had
    broken,    // one of them failed; the other is reset
    idle,      // nothing came or went for so long
};
struct Relayed {
    RelayEnd end = RelayEnd::finished;
    std::uint64_t there = 0;  // bytes from `a` to `b`
    std::uint64_t back = 0;
};

// Until both sides have ended, or one fails. A side that sends no more has that passed on, and is still sent to. A side
// that doesn't read holds up the other one's sender, and nothing else. Both sockets are closed afterwards; they outlive
// the call.
[[nodiscard]] boost::asio::awaitable<Relayed> relay(net::StreamSocket& a, net::StreamSocket& b, base::Clock& clock,
                                                    base::Duration idle);

// Closes it so that the peer sees a failure and no end.
void reset(net::StreamSocket& socket) noexcept;

}  // namespace ghost::agent
