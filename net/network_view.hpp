// What rtnetlink tells of the host's way out, without a socket: the global
// addresses and the default routes, of the machine's own and not of its VMs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>

namespace ghost::net {

// By its name: libvirt's bridges and what VMs and containers are plugged into. They come and go with their guests. Not
// "tap": that may be a tunnel of the host's own.
[[nodiscard]] bool is_guest_interface(std::string_view name);

// Fed with what the kernel sends: first with dumps of the links, the addresses and the routes, in this order, then with
// the notifications about them. A notification that repeats what is known (an address whose lifetime was renewed) is no
// change.
class NetworkView {
public:
    struct Told {
        bool changed = false;      // the way out isn't what it was
        bool dump_ended = false;   // or failed
        bool interrupted = false;  // what was dumped changed meanwhile, or the bytes are cut off: to be dumped again
    };
    // The bytes of one datagram, of any length and content.
    [[nodiscard]] Told take(std::span<const std::byte> datagram);
    void clear();
    // The same addresses and default routes; guests' come and go.
    [[nodiscard]] bool is_same_way_out(const NetworkView& other) const {
        return addresses_ == other.addresses_ && routes_ == other.routes_;
    }

private:
    using Address = std::pair<int, std::string>;  // interface, bytes of the address
    struct Route {
        int family = 0;
        std::uint32_t priority = 0;
        std::set<int> interfaces;
        std::string next_hops;  // the bytes that tell them apart
        auto operator<=>(const Route&) const = default;
    };

    [[nodiscard]] bool take_link(std::span<const std::byte> body, bool removed);
    [[nodiscard]] bool take_address(std::span<const std::byte> body, bool removed);
    [[nodiscard]] bool take_route(std::span<const std::byte> body, bool removed, bool replaces);
    [[nodiscard]] bool is_guests(int interface) const;
    [[nodiscard]] bool forget_routes_of(int interface);

    struct Interface {
        std::string name;
        bool has_master = false;  // it is a port, most likely of a bridge
    };

    std::map<int, Interface> interfaces_;
    std::set<Address> addresses_;
    std::set<Route> routes_;
};

}  // namespace ghost::net
