// Which addresses may be connected to.
#pragma once

#include <boost/asio/ip/address.hpp>

#include <functional>
#include <optional>
#include <string_view>

namespace ghost::net {

struct Network {
    boost::asio::ip::address address;
    unsigned prefix = 0;  // bits that count
};
// "10.0.0.0/8", "fd00::/8", or one address.
[[nodiscard]] std::optional<Network> parse_network(std::string_view text);
// Never across address families.
[[nodiscard]] bool contains(const Network& network, const boost::asio::ip::address& address);

// True when the address may be connected to; empty: each may.
using AddressRule = std::function<bool(const boost::asio::ip::address&)>;

// False for what IANA's special-purpose registries call not globally reachable, and for multicast. An IPv6 address
// that stands for an IPv4 one (mapped, NAT64, 6to4) is judged by that.
[[nodiscard]] bool is_public(const boost::asio::ip::address& address);

}  // namespace ghost::net
