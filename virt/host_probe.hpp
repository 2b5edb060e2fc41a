// What one connection offers: the host's figures and what domains are made of.
#pragma once

#include "base/error.hpp"
#include "virt/domain_xml.hpp"
#include "virt/hypervisor.hpp"
#include "virt/kvm_access.hpp"

#include <libvirt/libvirt.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::virt {

struct HostProbe {
    HostInfo host;
    Machine machine;
};

// The host's architecture, the domain types its capabilities list for it ("kvm", "qemu", "test", ...), and who QEMU
// runs as where libvirt tells.
struct GuestSupport {
    std::string architecture;
    std::vector<std::string> types;
    std::optional<QemuUser> qemu_user;
};
[[nodiscard]] base::Result<GuestSupport> guest_support(std::string_view capabilities_xml);

// The best CPU mode that domain capabilities list as supported, of those we use; empty: none.
[[nodiscard]] std::string best_cpu_mode(std::string_view domain_capabilities_xml);

// Blocks: runs inside a lane's job. `automatic` chooses KVM when QEMU can open `kvm_device` and the daemon knows how to
// use it. Errors: hypervisor_error, also when KVM is wanted and can't be had.
[[nodiscard]] base::Result<HostProbe> probe_host(virConnectPtr connection, VirtType wanted = VirtType::automatic,
                                                 const std::string& kvm_device = "/dev/kvm");

}  // namespace ghost::virt
