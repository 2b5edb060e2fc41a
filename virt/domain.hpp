// What the agent asks of a domain and what the hypervisor says about one.
#pragma once

#include "base/clock.hpp"

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ghost::virt {

enum class Power : std::uint8_t { running, off, paused, suspended, crashed, unknown };
[[nodiscard]] std::string_view name_of(Power power) noexcept;

enum class Firmware : std::uint8_t { bios, uefi };

// A disk to be defined. `name` becomes its serial (what a guest sees under /dev/disk/by-id).
struct DiskSpec {
    std::string name;
    std::string path;            // a qcow2 volume
    std::string backing_path;    // empty: none. Written explicitly into the XML with its format
    std::string backing_format;  // "qcow2" | "raw"
};
struct NicSpec {
    std::string name;
    std::string network;  // libvirt network
    std::string mac;
};

// A domain to be defined. Every string is escaped when written; names are validated by the caller beforehand.
struct DomainSpec {
    std::string uuid;
    std::string name;
    unsigned vcpus = 1;
    std::uint64_t memory_mib = 0;
    Firmware firmware = Firmware::bios;
    bool autostart = false;       // libvirt's own autostart flag
    std::vector<DiskSpec> disks;  // root first: vda, vdb, ...
    std::string seed_path;        // NoCloud ISO on virtio-scsi; empty: none
    std::vector<NicSpec> nics;
    std::string console_log;          // file the serial console is logged to
    std::string console_socket = {};  // where QEMU listens for who reads it and types; empty: a pseudo-terminal
    bool display = true;              // a screen, and a VNC server for it on a Unix socket of libvirt's choice
    std::string record;               // our metadata element's text (JSON), opaque here
};

struct DomainDisk {
    std::string target;  // "vda"
    std::string serial;  // our DiskSpec::name, may be empty
    std::string path;    // file source, may be empty
    std::string format;
    bool cdrom = false;
};
// A file that a domain's disk is, stands on, or is being copied to.
struct DiskFile {
    std::string path;
    std::string format = {};  // "qcow2", "raw", ...; empty: not told

    friend auto operator<=>(const DiskFile&, const DiskFile&) = default;
};
struct DomainNic {
    std::string mac;
    std::string network;
    std::string model;
};

// A domain as defined, and how it runs.
struct DomainInfo {
    std::string uuid;
    std::string name;
    Power power = Power::unknown;
    std::string power_reason;  // "booted", "crashed", "destroyed", "io_error", ... libvirt's reason in snake_case
    bool persistent = true;
    bool autostart = false;
    bool has_saved_state = false;  // managed save image: its power is `suspended`
    unsigned vcpus = 0;            // of the persistent definition
    std::uint64_t memory_mib = 0;  // of the persistent definition
    unsigned live_vcpus = 0;       // what it runs with now, 0 when off
    std::uint64_t live_memory_mib = 0;
    Firmware firmware = Firmware::bios;
    std::vector<DomainDisk> disks;
    std::vector<DomainNic> nics;
    std::optional<std::string> record;        // our metadata element's text; absent: not ours
    std::optional<base::Wall> running_since;  // start of its QEMU process, where that can be told
};

// Cheap figures, taken without touching a QEMU monitor: they stay fresh beside a stuck neighbour.
struct DomainState {
    std::string uuid;
    Power power = Power::unknown;
    std::string power_reason;
};

// Dearer figures of one running domain.
struct DomainUsage {
    std::uint64_t cpu_time_ns = 0;  // all vCPUs, since start
    std::uint64_t memory_mib = 0;   // resident on the host
    std::uint64_t disk_bytes = 0;   // allocated by all its disks
    base::Instant taken;
};

}  // namespace ghost::virt
