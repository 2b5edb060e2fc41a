// Values as people write them: "30s", "10GiB", "127.0.0.1:9092".
#pragma once

#include <boost/asio/ip/tcp.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

namespace ghost::agent {

// A finite number in decimal, nothing around it.
[[nodiscard]] std::optional<double> parse_number(std::string_view text);
[[nodiscard]] std::optional<std::uint64_t> parse_whole(std::string_view text);
// true, yes, on, false, no, off, in any case.
[[nodiscard]] std::optional<bool> parse_flag(std::string_view text);

// "500ms", "30s", "5m", "1h30m", "28d", "2w". A number without a unit counts in `bare` when that isn't zero.
[[nodiscard]] std::optional<std::chrono::milliseconds> parse_duration(std::string_view text,
                                                                      std::chrono::milliseconds bare);

// Bytes from "512", "100MB" (powers of 1000), "10GiB" or "10G" (powers of 1024), "1.5TiB". A number without a unit
// counts in `bare` bytes; when that is zero only 0 may stand alone.
[[nodiscard]] std::optional<std::uint64_t> parse_size(std::string_view text, std::uint64_t bare);

// A numeric address and a port: "127.0.0.1:9092", "[::1]:9092". Names are not looked up.
[[nodiscard]] std::optional<boost::asio::ip::tcp::endpoint> parse_listen_address(std::string_view text);

// "tailscale:9092": the port at whatever addresses this machine has in its tailnet.
[[nodiscard]] std::optional<std::uint16_t> parse_tailnet_port(std::string_view text);

}  // namespace ghost::agent
