// What went over a TCP connection of this process, as the kernel counts it.
#pragma once

#include <cstdint>
#include <optional>

namespace ghost::bench {

struct TcpBytes {
    double sent = 0;  // without the headers of TCP and IP
    double received = 0;
    double packets = 0;  // both ways
};
// Since it was opened; of the one to this port. nullopt: there is none.
[[nodiscard]] std::optional<TcpBytes> bytes_to(std::uint16_t port);

}  // namespace ghost::bench
