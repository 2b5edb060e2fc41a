// VMs as JSON: the body of a create, a merge patch, the stored document, and
// what the API shows. The one place that knows the members and their bounds.
#pragma once

#include "agent/vm/vm.hpp"
#include "agent/vm/vm_limits.hpp"
#include "base/error.hpp"

#include <boost/json/object.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::agent {

// Which ports of this host VMs may have: the configuration's say.
struct ForwardRules {
    bool privileged_ports = false;  // below 1024
    bool all_addresses = false;     // "0.0.0.0"
};
// Why this host's configuration doesn't let it listen; empty: it does. `member`: which of the forward's is at fault.
struct ForwardRefusal {
    std::string_view member;
    std::string reason;
};
[[nodiscard]] std::optional<ForwardRefusal> refusal_of(const Forward& forward, const ForwardRules& rules);

// What the configuration says of VMs.
struct VmDefaults {
    unsigned vcpus = 2;
    std::uint64_t memory_mib = 2048;
    std::uint64_t disk_gib = 20;
    std::string network = "default";
    ForwardRules forwards = {};
};

enum class WaitFor : std::uint8_t { running, address, guest_ready };
[[nodiscard]] std::string_view name_of(WaitFor wait_for) noexcept;
[[nodiscard]] WaitFor wait_for_named(std::string_view name) noexcept;  // running for any other name

struct CreateVm {
    std::string name;
    std::string owner;
    Labels labels;
    VmSpec spec;
    bool disk_given = false;  // disk_gib was asked for, not our default
    std::string user_data;    // secret: goes into the seed and nowhere else
    WaitFor wait_for = WaitFor::running;
};

// Errors: validation_failed with every fault.
[[nodiscard]] base::Result<CreateVm> read_create(const boost::json::value& body, const VmDefaults& defaults);

// What a merge patch (RFC 7396) asks to change; absent members stay as they are.
struct VmPatch {
    std::optional<std::string> owner;
    std::map<std::string, std::optional<std::string>> labels;  // nullopt removes
    bool clear_labels = false;                                 // "labels": null
    std::optional<bool> is_protected;
    std::optional<Autostart> autostart;
    std::optional<bool> power_on;
    std::optional<unsigned> vcpus;
    std::optional<std::uint64_t> memory_mib;
    std::optional<std::uint64_t> disk_gib;
    std::map<std::string, std::optional<Forward>> forwards;  // whole, as they are to be; nullopt removes
    bool clear_forwards = false;                             // "forwards": null
    std::optional<bool> guest_access;
};
// What the patch makes of a VM's forwards.
void apply_forwards(const VmPatch& patch, std::map<std::string, Forward>& forwards);
// `rules` hold for the forwards that the patch changes; what stands already isn't judged anew.
[[nodiscard]] base::Result<VmPatch> read_patch(const boost::json::value& body, const Vm& current,
                                               const ForwardRules& rules = {});

// "127.0.0.1:8080/tcp to the guest's port 80", for a sentence.
[[nodiscard]] std::string describe(const Forward& forward);

// All of a managed VM but what was observed.
[[nodiscard]] std::string to_document(const Vm& vm);
[[nodiscard]] base::Result<Vm> vm_from_document(std::string_view document);

// The API's resource. `operation`: id of the one running on it, or empty.
[[nodiscard]] boost::json::object to_resource(const Vm& vm, std::string_view operation, base::Wall now);
// `"g3-r17"`, quotes included.
[[nodiscard]] std::string etag_of(const Vm& vm);

// A domain that others defined, as far as its XML tells.
[[nodiscard]] Vm vm_from_domain(const virt::DomainInfo& domain);

[[nodiscard]] bool is_vm_name(std::string_view name) noexcept;

}  // namespace ghost::agent
