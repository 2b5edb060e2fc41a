// Blocking reads of domains, for lane jobs: each runs on the thread that owns
// `connection`. Errors are those of errc_of(): not_found, state_conflict,
// hypervisor_error, hypervisor_unavailable.
#pragma once

#include "base/error.hpp"
#include "virt/connection.hpp"
#include "virt/domain.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::virt {

[[nodiscard]] base::Result<DomainPtr> find_domain(virConnectPtr connection, const std::string& uuid);

// Domains that go away between the list and a look at them are left out.
[[nodiscard]] base::Result<std::vector<DomainInfo>> read_domains(virConnectPtr connection);
[[nodiscard]] base::Result<DomainInfo> read_domain(virConnectPtr connection, const std::string& uuid);

// Of all domains' disks, as they run and as they are defined (disk_files_of). Without a QEMU monitor.
[[nodiscard]] base::Result<std::vector<DiskFile>> read_disk_files(virConnectPtr connection);

// Without a QEMU monitor: answers beside a stuck guest.
[[nodiscard]] base::Result<std::vector<DomainState>> read_states(virConnectPtr connection);

// Asks the domain's monitor; hangs while its QEMU is stopped. state_conflict when it doesn't run. `taken` is not set.
[[nodiscard]] base::Result<DomainUsage> read_usage(virConnectPtr connection, const std::string& uuid);

enum class AddressSource : std::uint8_t { leases, guest_agent };
// Global unicast addresses, in order, without repeats, at most max_addresses. `agent_seconds`: how long the agent may
// take for each answer.
[[nodiscard]] base::Result<std::vector<std::string>> read_addresses(virConnectPtr connection, const std::string& uuid,
                                                                    AddressSource source, int agent_seconds);

// As it is written canonically, without a scope; nullopt for loopback, link-local, unspecified, multicast, and for what
// is no address: a guest may say anything.
[[nodiscard]] std::optional<std::string> reachable_address(std::string_view text);

}  // namespace ghost::virt
