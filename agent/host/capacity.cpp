#include "agent/host/capacity.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace ghost::agent {
namespace json = boost::json;
namespace {

template <class N>
N minus(N a, N b) {
    return a > b ? a - b : N{};
}

template <class N>
json::object pool_json(const Pool<N>& pool) {
    return {{"total", pool.total}, {"reserved", pool.reserved}, {"allocated", pool.allocated}, {"free", pool.free}};
}

double gib(std::uint64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(1ULL << 30); }

// All that is short at once, so that nobody has to ask again for each.
class Shortage {
public:
    template <class Needed, class Free>
    void add(std::string_view what, Needed needed, Free free, std::string sentence) {
        needed_[what] = needed;
        free_[what] = free;
        if (!sentences_.empty()) sentences_ += "; ";
        sentences_ += sentence;
        only_disk_ = only_disk_ && what == "disk_bytes";
    }
    [[nodiscard]] base::Result<void> result() && {
        if (needed_.empty()) return {};
        base::Error error{only_disk_ ? base::Errc::insufficient_storage : base::Errc::insufficient_resources,
                          std::move(sentences_)};
        error.facts["needed"] = std::move(needed_);
        error.facts["free"] = std::move(free_);
        return base::fail(std::move(error));
    }

private:
    json::object needed_;
    json::object free_;
    std::string sentences_;
    bool only_disk_ = true;
};

void add_cpus(Shortage& shortage, unsigned vcpus, unsigned host) {
    shortage.add("vcpus", vcpus, host, fmt::format("{} vCPUs are more than this host's {} CPUs", vcpus, host));
}

void add_disk(Shortage& shortage, std::uint64_t bytes, const Pool<std::uint64_t>& disk) {
    shortage.add(
        "disk_bytes", bytes, disk.free,
        fmt::format(
            "{:.1f} GiB of disk are needed and {:.1f} GiB are free ({:.1f} GiB are reserved for the host's owner)",
            gib(bytes), gib(disk.free), gib(disk.reserved)));
}

}  // namespace

std::uint64_t disk_bytes_of(const VmSpec& spec) {
    std::uint64_t gibs = spec.disk_gib;
    for (const auto& [name, disk] : spec.disks) gibs += disk.size_gib;
    return gibs << 30;
}

void Capacity::set_host(unsigned cpus, std::uint64_t memory_mib) {
    cpus_ = cpus;
    memory_mib_ = memory_mib;
}

void Capacity::set_disk(storage::Space space, std::uint64_t ours) {
    disk_ = space;
    ours_ = ours;
}

Resources Capacity::resources(std::string_view without) const {
    Resources r;
    r.cpus.total = cpus_;
    r.cpus.reserved = reserve_.cpus;
    r.memory_mib.total = memory_mib_;
    r.memory_mib.reserved = reserve_.memory_mib;
    r.disk_bytes.total = disk_.total;
    r.disk_bytes.reserved = reserve_.disk_bytes;
    for (const auto& [id, vm] : vms_.all()) {
        if (id == without) continue;
        if (vm.managed) r.disk_bytes.allocated += disk_bytes_of(vm.spec);
        if (is_running(vm) || vms_.claimed(id)) {
            // What it runs with now, or will after its next start: whichever is more.
            r.cpus.allocated += std::max(vm.spec.vcpus, vm.observed.live_vcpus);
            r.memory_mib.allocated += std::max(vm.spec.memory_mib, vm.observed.live_memory_mib);
        }
    }
    r.cpus.free = std::max(0.0, (r.cpus.total - r.cpus.reserved) * reserve_.cpu_overcommit - r.cpus.allocated);
    r.memory_mib.free = minus(r.memory_mib.total, r.memory_mib.reserved + r.memory_mib.allocated);
    std::uint64_t held = 0;
    for (const auto& [holder, bytes] : held_) held += bytes;
    r.disk_bytes.allocated += held;
    const auto others = minus(minus(disk_.total, disk_.free), ours_);
    r.disk_bytes.free = std::min(minus(disk_.total, others + r.disk_bytes.reserved + r.disk_bytes.allocated),
                                 minus(disk_.free, r.disk_bytes.reserved + held));
    return r;
}

base::Result<void> Capacity::fits(const Demand& demand, std::string_view without) const {
    if (!known()) return base::fail(base::Errc::hypervisor_unavailable, "the host's resources are not known yet");
    const auto r = resources(without);
    Shortage shortage;
    if (demand.vcpus > cpus_)
        add_cpus(shortage, demand.vcpus, cpus_);
    else if (demand.vcpus > r.cpus.free)
        shortage.add("vcpus", demand.vcpus, r.cpus.free,
                     fmt::format("{} vCPUs are needed and {:g} are free", demand.vcpus, r.cpus.free));
    if (demand.memory_mib > r.memory_mib.free)
        shortage.add(
            "memory_mib", demand.memory_mib, r.memory_mib.free,
            fmt::format("{} MiB of memory are needed and {} MiB are free ({} MiB are reserved for the host's owner)",
                        demand.memory_mib, r.memory_mib.free, r.memory_mib.reserved));
    if (demand.disk_bytes > r.disk_bytes.free) add_disk(shortage, demand.disk_bytes, r.disk_bytes);
    return std::move(shortage).result();
}

json::object Capacity::needs(const Demand& demand, std::string_view without) const {
    const auto r = resources(without);
    json::object needed;
    json::object free;
    const auto add = [&](std::string_view what, auto amount, auto left) {
        if (amount == 0) return;
        needed[what] = amount;
        free[what] = left;
    };
    add("vcpus", demand.vcpus, r.cpus.free);
    add("memory_mib", demand.memory_mib, r.memory_mib.free);
    add("disk_bytes", demand.disk_bytes, r.disk_bytes.free);
    return {{"needed", std::move(needed)}, {"free", std::move(free)}};
}

base::Result<void> Capacity::fits_host(unsigned vcpus, std::uint64_t memory_mib) const {
    if (!known()) return base::fail(base::Errc::hypervisor_unavailable, "the host's resources are not known yet");
    Shortage shortage;
    if (vcpus > cpus_) add_cpus(shortage, vcpus, cpus_);
    const auto most = minus(memory_mib_, reserve_.memory_mib);
    if (memory_mib > most)
        shortage.add("memory_mib", memory_mib, most,
                     fmt::format("{} MiB of memory are more than the {} MiB that this host has for VMs "
                                 "({} MiB are reserved for its owner)",
                                 memory_mib, most, reserve_.memory_mib));
    return std::move(shortage).result();
}

base::Result<void> Capacity::fits_on_disk(std::uint64_t bytes) const {
    const auto disk = resources().disk_bytes;
    Shortage shortage;
    if (bytes > disk.free) add_disk(shortage, bytes, disk);
    return std::move(shortage).result();
}

base::Result<void> Capacity::hold_disk(const std::string& holder, std::uint64_t bytes) {
    held_.erase(holder);
    auto fits = fits_on_disk(bytes);
    if (fits) held_[holder] = bytes;
    return fits;
}

std::set<std::string> Capacity::planned_disks() const {
    std::set<std::string> paths;
    for (const auto& [id, vm] : vms_.all()) {
        if (!vm.managed) continue;
        paths.insert(vm.plan.root_disk);
        for (const auto& [name, path] : vm.plan.disks) paths.insert(path);
    }
    return paths;
}

json::object to_json(const Resources& r) {
    return {
        {"cpus", pool_json(r.cpus)}, {"memory_mib", pool_json(r.memory_mib)}, {"disk_bytes", pool_json(r.disk_bytes)}};
}

}  // namespace ghost::agent
