// Blocking changes of domains, for lane jobs: each runs on the thread that owns
// `connection`. Errors: not_found, already_exists, state_conflict,
// validation_failed, hypervisor_error, hypervisor_unavailable.
#pragma once

#include "base/error.hpp"
#include "virt/domain_xml.hpp"

#include <libvirt/libvirt.h>

#include <cstdint>
#include <string>

namespace ghost::virt {

// Never replaces a definition: libvirt would do so silently for the same name and uuid.
[[nodiscard]] base::Result<void> define_domain(virConnectPtr connection, const DomainSpec& spec,
                                               const Machine& machine);
[[nodiscard]] base::Result<void> undefine_domain(virConnectPtr connection, const std::string& uuid);
[[nodiscard]] base::Result<void> start_domain(virConnectPtr connection, const std::string& uuid);
// Returns when the agent took the request, or the guest went down; fails within about `agent_seconds` without an agent.
[[nodiscard]] base::Result<void> shutdown_by_agent(virConnectPtr connection, const std::string& uuid,
                                                   int agent_seconds);
[[nodiscard]] base::Result<void> shutdown_by_power_button(virConnectPtr connection, const std::string& uuid);
[[nodiscard]] base::Result<void> power_off_domain(virConnectPtr connection, const std::string& uuid);
// Already off, or gone, is a success; that libvirt doesn't say which is none.
[[nodiscard]] base::Result<void> power_off_domain(virDomainPtr domain);
[[nodiscard]] base::Result<void> reset_domain(virConnectPtr connection, const std::string& uuid);
[[nodiscard]] base::Result<void> pause_domain(virConnectPtr connection, const std::string& uuid);
[[nodiscard]] base::Result<void> resume_domain(virConnectPtr connection, const std::string& uuid);
[[nodiscard]] base::Result<void> save_domain(virConnectPtr connection, const std::string& uuid);
[[nodiscard]] base::Result<void> abort_domain_job(virConnectPtr connection, const std::string& uuid);
[[nodiscard]] base::Result<void> resize_domain(virConnectPtr connection, const std::string& uuid, unsigned vcpus,
                                               std::uint64_t memory_mib);
[[nodiscard]] base::Result<void> set_domain_autostart(virConnectPtr connection, const std::string& uuid, bool on);
[[nodiscard]] base::Result<void> set_domain_record(virConnectPtr connection, const std::string& uuid,
                                                   const std::string& record);
// Named so already is a success.
[[nodiscard]] base::Result<void> rename_domain(virConnectPtr connection, const std::string& uuid,
                                               const std::string& name);

}  // namespace ghost::virt
