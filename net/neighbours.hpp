// Who answers for an address on the links of this host: what ARP and NDP have
// found out, as the kernel keeps it.
#pragma once

#include <boost/asio/ip/address.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace ghost::net {

// The link address, "52:54:00:..." in small letters, of the neighbour that what is sent to `address` goes to. Nullopt:
// nobody has answered for it (yet), or it isn't on a link of this host. Asks the kernel, which answers at once.
[[nodiscard]] std::optional<std::string> link_address_of(const boost::asio::ip::address& address);

// It is one of this host's own, of whichever interface; broadcasts count as such. What isn't known counts, too.
[[nodiscard]] bool is_own_address(const boost::asio::ip::address& address);

// It is reached without a gateway, as what is on a link of this host.
[[nodiscard]] bool is_on_link(const boost::asio::ip::address& address);

// What rtnetlink answers when it is asked for one route, and for one neighbour; bytes of any length and content.

// Whether it leads to this very host; nullopt: no answer to that.
[[nodiscard]] std::optional<bool> is_local_in(std::span<const std::byte> answer);
// The interface through which the destination is reached without a gateway.
[[nodiscard]] std::optional<int> direct_interface_in(std::span<const std::byte> answer);
// Of a neighbour with `address` that has answered.
[[nodiscard]] std::optional<std::string> link_address_in(std::span<const std::byte> answer,
                                                         const boost::asio::ip::address& address);

}  // namespace ghost::net
