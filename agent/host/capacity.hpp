// What this host has, what its owner keeps, what VMs hold, and whether another
// one fits. The same numbers answer /v1/resources and decide admission.
#pragma once

#include "agent/vm/vm_index.hpp"
#include "base/error.hpp"
#include "storage/files.hpp"
#include "virt/hypervisor.hpp"

#include <boost/json/object.hpp>

#include <cstdint>
#include <map>
#include <set>
#include <string>

namespace ghost::agent {

struct Reserve {  // the owner's share
    double cpus = 1;
    std::uint64_t memory_mib = 2048;
    std::uint64_t disk_bytes = 10ULL << 30;
    double cpu_overcommit = 4;
};

template <class N>
struct Pool {
    N total{};
    N reserved{};
    N allocated{};
    N free{};
};
struct Resources {
    Pool<double> cpus;
    Pool<std::uint64_t> memory_mib;
    Pool<std::uint64_t> disk_bytes;
};

struct Demand {
    unsigned vcpus = 0;            // 0: won't run now
    std::uint64_t memory_mib = 0;  // 0: won't run now
    std::uint64_t disk_bytes = 0;
};

// Loop thread only. Running VMs (also other people's) count for CPU and memory, all managed ones for disk.
class Capacity {
public:
    Capacity(const VmIndex& vms, Reserve reserve) : vms_(vms), reserve_(reserve) {}

    void set_host(unsigned cpus, std::uint64_t memory_mib);
    // The disks' file system, and how much of it the planned disks occupy.
    void set_disk(storage::Space space, std::uint64_t ours);
    [[nodiscard]] const Reserve& reserve() const noexcept { return reserve_; }
    [[nodiscard]] bool known() const noexcept { return cpus_ > 0 && disk_.total > 0; }

    // `without` names a VM that is left out of the sums (it is being resized or started).
    [[nodiscard]] Resources resources(std::string_view without = {}) const;
    // Errors: insufficient_resources, or insufficient_storage when it is the disk alone, with facts needed, free (of
    // all that is short).
    // hypervisor_unavailable while the host's size is not known.
    [[nodiscard]] base::Result<void> fits(const Demand& demand, std::string_view without = {}) const;
    // What it takes and what is free now: {"needed": {...}, "free": {...}}, of the parts that it takes any of.
    [[nodiscard]] boost::json::object needs(const Demand& demand, std::string_view without = {}) const;
    // Whether a VM of that size could ever run here, alone: insufficient_resources, likewise.
    [[nodiscard]] base::Result<void> fits_host(unsigned vcpus, std::uint64_t memory_mib) const;
    // Whether so much more may be written: insufficient_storage, likewise.
    [[nodiscard]] base::Result<void> fits_on_disk(std::uint64_t bytes) const;
    // Likewise, and promised to `holder` until it is released; asking again replaces what it holds.
    [[nodiscard]] base::Result<void> hold_disk(const std::string& holder, std::uint64_t bytes);
    void release_disk(const std::string& holder) { held_.erase(holder); }
    // Paths of the disks that managed VMs were promised.
    [[nodiscard]] std::set<std::string> planned_disks() const;

private:
    const VmIndex& vms_;
    Reserve reserve_;
    unsigned cpus_ = 0;
    std::uint64_t memory_mib_ = 0;
    storage::Space disk_;
    std::uint64_t ours_ = 0;
    std::map<std::string, std::uint64_t> held_;  // bytes of the disk, by who is about to write them
};

[[nodiscard]] std::uint64_t disk_bytes_of(const VmSpec& spec);
[[nodiscard]] boost::json::object to_json(const Resources& resources);

}  // namespace ghost::agent
