// Domain XML: made from a spec, read into a DomainInfo, edited in place. Pure
// text to text, through pugixml; it asks no daemon.
//
// Errors: validation_failed when a value can't stand in XML at all (control
// characters, broken UTF-8), state_conflict when a definition can't be edited as
// asked, hypervisor_error when a document isn't the domain it should be.
#pragma once

#include "base/error.hpp"
#include "virt/domain.hpp"

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace ghost::virt {

// What domains of one connection are made of. Decided once per connection (host_probe.hpp).
struct Machine {
    std::string type;          // domain type: "kvm" | "qemu" | "test"
    std::string architecture;  // "x86_64", "aarch64"
    std::string machine;       // "q35", "virt"; empty: left to the driver, with plain devices only
    std::string cpu_mode;      // "host-passthrough", "maximum"; empty: the driver's default CPU
};

// Root ports left empty for devices plugged in later.
inline constexpr unsigned spare_root_ports = 8;

// Our metadata element: one per domain, known by its namespace. XML makes every line end in its text a \n.
inline constexpr std::string_view record_namespace = "https://ghost.cloud/xmlns/vm/1";
inline constexpr std::string_view record_prefix = "ghost";

[[nodiscard]] base::Result<std::string> domain_xml(const DomainSpec& spec, const Machine& machine);

// The element virDomainSetMetadata takes for `record` (libvirt adds the namespace).
[[nodiscard]] base::Result<std::string> record_element(std::string_view record);

// What the persistent definition tells. Power, persistence, autostart and live figures are left as they are by default.
[[nodiscard]] base::Result<DomainInfo> parse_domain_xml(std::string_view xml);

// A volume of a storage pool, by name.
struct PoolVolume {
    std::string pool;
    std::string volume;
    std::string format = {};

    friend auto operator<=>(const PoolVolume&, const PoolVolume&) = default;
};
struct DiskSources {
    std::set<DiskFile> files;
    std::set<PoolVolume> volumes;
};
// Of all its disks, floppies and CD-ROMs: their sources, what the document knows them to stand on, and what they are
// being copied to. What isn't local is left out.
[[nodiscard]] base::Result<DiskSources> disk_sources_of(std::string_view xml);

// The definition with other numbers of vCPUs and memory; all else as it was. A NUMA layout is refused: its cells
// spell out both.
[[nodiscard]] base::Result<std::string> resized_domain_xml(std::string_view xml, unsigned vcpus,
                                                           std::uint64_t memory_mib);

}  // namespace ghost::virt
