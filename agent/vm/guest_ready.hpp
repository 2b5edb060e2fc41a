// What a guest's answer to "how far is cloud-init?" means for the VM.
//
// `cloud-init status` speaks differently by version: JSON since 22.4, lines
// before; 'error' and the exit codes 0 and 1 for long, since 23.4 also recoverable
// errors (exit code 2) that leave the guest as good as done.
#pragma once

#include "agent/vm/vm.hpp"
#include "virt/hypervisor.hpp"

#include <optional>
#include <string>
#include <vector>

namespace ghost::agent {

enum class CloudInitDialect : std::uint8_t { json, lines };

// The program for the guest that asks.
[[nodiscard]] std::vector<std::string> cloud_init_question(CloudInitDialect dialect);

// What `run` of that program tells; nothing if this cloud-init doesn't speak the dialect. A guest may answer whatever
// it likes: what of it shows is short, plain text.
[[nodiscard]] std::optional<GuestReadiness> guest_readiness(const virt::GuestRun& run, CloudInitDialect dialect);

}  // namespace ghost::agent
