// Networks and storage pools of the host: found, started, and made when they
// are the agent's to make. Others make and start them too: losing such a race
// is no failure.
//
// ensure_*() block: they run inside a lane's job. Errors: not_found,
// state_conflict (an address range or a pool clashes; it says with what),
// hypervisor_error, hypervisor_unavailable.
#pragma once

#include "base/error.hpp"
#include "virt/hypervisor.hpp"

#include <libvirt/libvirt.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::virt {

// IPv4, host byte order.
struct Subnet {
    std::uint32_t address = 0;  // of the network: host bits are zero
    unsigned prefix = 0;

    [[nodiscard]] bool overlaps(const Subnet& other) const noexcept;
    [[nodiscard]] std::string text() const;  // "192.168.122.0/24"
};

// Something that already uses a range of addresses.
struct Claim {
    Subnet subnet;
    std::string by;  // "route on eth0", "network isolated"
};

// The claims of /proc/net/route. Routes so wide that they mean "everything" (shorter than /8) claim nothing.
[[nodiscard]] std::vector<Claim> route_claims(std::string_view proc_net_route);
// The claims of a libvirt network's XML.
[[nodiscard]] std::vector<Claim> network_claims(std::string_view network_xml);
[[nodiscard]] const Claim* clash_with(const Subnet& subnet, const std::vector<Claim>& claims) noexcept;

// Where the default network may live, in the order of preference.
[[nodiscard]] std::vector<Subnet> default_subnets();
// The first of `candidates` that clashes with nothing.
[[nodiscard]] std::optional<Subnet> first_free(const std::vector<Subnet>& candidates, const std::vector<Claim>& claims);

// A NAT network with DHCP on a /24; libvirt names the bridge.
[[nodiscard]] std::string nat_network_xml(const std::string& name, const Subnet& subnet);
[[nodiscard]] std::string directory_pool_xml(const std::string& name, const std::string& path);

[[nodiscard]] base::Result<NetworkInfo> ensure_network(virConnectPtr connection, const std::string& name,
                                                       const std::string& route_file = "/proc/net/route");
[[nodiscard]] base::Result<PoolInfo> ensure_pool(virConnectPtr connection, const std::string& name,
                                                 const std::string& create_at);

}  // namespace ghost::virt
