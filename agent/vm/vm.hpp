// A VM as the agent knows it: what was asked (spec), where its parts are
// (plan), and what was last seen (observed).
#pragma once

#include "base/clock.hpp"
#include "virt/domain.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ghost::agent {

enum class Autostart : std::uint8_t { never, last, always };
enum class Phase : std::uint8_t { provisioning, ready, deleting, error };
[[nodiscard]] std::string_view name_of(Autostart autostart) noexcept;
[[nodiscard]] std::string_view name_of(Phase phase) noexcept;

using Labels = std::map<std::string, std::string>;

struct CloudInit {
    std::string hostname;  // empty: the VM's name
    std::string user;      // empty: the image's default user
    std::vector<std::string> ssh_authorized_keys;
    std::string user_data_sha256;  // of what was given; the text itself is never kept
};

struct ExtraDisk {
    std::uint64_t size_gib = 0;
};
struct Nic {
    std::string network;
};

enum class Protocol : std::uint8_t { tcp, udp };
[[nodiscard]] std::string_view name_of(Protocol protocol) noexcept;
// A port of this host whose traffic goes to a port of the guest.
struct Forward {
    std::string host_address = "127.0.0.1";  // or "0.0.0.0": every one; or "tailscale": those in the tailnet
    std::uint16_t host_port = 0;
    std::uint16_t guest_port = 0;
    Protocol protocol = Protocol::tcp;

    [[nodiscard]] bool operator==(const Forward&) const = default;
};

struct VmSpec {
    std::string image;
    std::uint64_t disk_gib = 0;
    unsigned vcpus = 0;
    std::uint64_t memory_mib = 0;
    bool power_on = true;  // wanted power
    Autostart autostart = Autostart::last;
    bool is_protected = false;
    virt::Firmware firmware = virt::Firmware::bios;
    CloudInit cloud_init;
    std::map<std::string, ExtraDisk> disks;
    std::map<std::string, Nic> nics;
    std::map<std::string, Forward> forwards;
    bool guest_access = false;  // commands may be run and files moved in the guest, through its agent
};

// Where the parts of a managed VM are; fixed when its create is accepted, so that an undo knows what to look for.
struct VmPlan {
    std::string installation;  // the agent whose VM it is: others may use the same hypervisor
    std::string image_digest;
    std::string image_format;
    std::string root_disk;                     // path of the overlay
    std::uint64_t root_gib = 0;                // its size; a grown spec.disk_gib is applied at the next start
    std::map<std::string, std::string> disks;  // extra disk -> path
    std::string seed;                          // path of the NoCloud image
    std::string console_log;
    std::string console_socket;               // empty: the console is a pseudo-terminal
    std::map<std::string, std::string> macs;  // nic -> MAC
    bool adopted = false;                     // others defined it: its files may lie anywhere
};

struct VmUsage {
    double cpu_percent = 0;  // of one CPU: 200 is two busy vCPUs
    std::uint64_t memory_mib = 0;
    std::uint64_t disk_bytes = 0;
};

enum class Verdict : std::uint8_t { no, yes, unknown };
[[nodiscard]] std::string_view name_of(Verdict verdict) noexcept;  // "false", "true", "unknown"

// Whether the guest has done what it does at its first boot, as it tells itself.
struct GuestReadiness {
    Verdict ready = Verdict::unknown;
    std::string reason = "no_guest_agent";  // snake_case
    std::string message = {};               // a sentence, where the reason doesn't say it all

    [[nodiscard]] bool operator==(const GuestReadiness&) const = default;
};

// Whether all forwards of a VM listen.
struct ForwardsState {
    bool listening = false;
    std::string reason = {};   // snake_case: "listening", "port_taken", ...
    std::string message = {};  // of each one that doesn't, and why

    [[nodiscard]] bool operator==(const ForwardsState&) const = default;
};

struct Observed {
    bool present = false;  // the hypervisor knows the domain
    virt::Power power = virt::Power::unknown;
    std::string power_reason = {};
    unsigned live_vcpus = 0;
    std::uint64_t live_memory_mib = 0;
    std::vector<std::string> addresses = {};
    std::string addresses_from = {};              // "dhcp_lease" | "guest_agent", while there are any
    std::vector<std::string> leases = {};         // those of `addresses` that libvirt gave out; not shown
    std::vector<std::string> macs = {};           // of its network cards, in small letters; not shown
    GuestReadiness guest = {};                    // of a managed VM that runs
    std::vector<std::string> ssh_host_keys = {};  // likewise, as the guest shows them: "ssh-ed25519 AAAA..."
    std::optional<ForwardsState> forwards = {};   // while they are to listen
    std::optional<base::Wall> running_since = {};
    std::optional<VmUsage> usage = {};
    std::vector<std::string> disk_paths = {};     // of the files that its disks have open now; not shown
    std::vector<std::string> missing_files = {};  // those of disk_paths that weren't there when last looked at
    bool monitor_silent = false;                  // its QEMU runs and doesn't answer: `usage` is as it was
    base::Wall at = {};
};

struct Condition {
    std::string type;  // "HasAddress", "RestartRequired", ...
    Verdict status = Verdict::unknown;
    std::string reason;   // snake_case
    std::string message;  // may be empty
    base::Wall since;
};

struct Vm {
    std::string id;
    std::string name;
    std::string owner;
    bool managed = true;
    Labels labels;
    std::uint64_t generation = 1;
    base::Wall created_at;
    Phase phase = Phase::provisioning;
    VmSpec spec;
    VmPlan plan;
    Observed observed;
    std::vector<Condition> conditions;
    std::uint64_t revision = 0;  // grows with every visible change but usage, uptime and observed_at
};

[[nodiscard]] inline bool is_running(const Vm& vm) noexcept {
    return vm.observed.power == virt::Power::running || vm.observed.power == virt::Power::paused;
}

}  // namespace ghost::agent
