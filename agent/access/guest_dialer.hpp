// Connections from the host to a guest's own address, and to no other.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "net/transport.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/udp.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ghost::agent {

struct Vm;
class VmIndex;

// Where a guest says it is, and how its network cards are known.
struct GuestPlace {
    std::string vm;                      // id
    std::vector<std::string> addresses;  // numeric, in the order they are tried
    std::vector<std::string> macs;       // "52:54:00:..."; of its network cards
};
// As the VM is observed now.
[[nodiscard]] GuestPlace place_of(const Vm& vm);

// A guest may claim any address, the host's or its neighbour's among them. So none is dialled that is this host's or
// another VM's, or that no guest can have, and nothing passes before the kernel has seen one of the guest's own network
// cards answer for the address. Errors: state_conflict (it has no address yet), address_not_allowed (which, and why),
// source_unavailable (it refused the connection, or can't be reached), deadline_exceeded, cancelled.
class GuestDialer {
public:
    template <class T>
    using Task = boost::asio::awaitable<base::Result<T>>;
    virtual ~GuestDialer() = default;

    [[nodiscard]] virtual Task<net::StreamSocket> connect(GuestPlace to, std::uint16_t port,
                                                          base::Instant deadline) = 0;
    // A connected socket; whether anybody listens there isn't known.
    [[nodiscard]] virtual Task<boost::asio::ip::udp::socket> connect_udp(GuestPlace to, std::uint16_t port,
                                                                         base::Instant deadline) = 0;
    // Whether what goes to `address`, where a socket of connect_udp()'s leads, still goes to that guest and to nobody
    // else, as far as is known; no wait.
    [[nodiscard]] virtual bool leads_to(const GuestPlace& to, const boost::asio::ip::address& address) = 0;
};
// The real one. `index` outlives it.
[[nodiscard]] std::unique_ptr<GuestDialer> make_guest_dialer(const VmIndex& index);

}  // namespace ghost::agent
