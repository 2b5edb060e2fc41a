#include "agent/host/capacity.hpp"

#include <fmt/format.h>

#include <algorithm>

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

base::Error short_of(base::Errc code, std::string detail, json::object needed, json::object free) {
    base::Error error{code, std::move(detail)};
    error.facts["needed"] = std::move(needed);
    error.facts["free"] = std::move(free);
    return error;
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
    const auto others = minus(minus(disk_.total, disk_.free), ours_);
    r.disk_bytes.free = std::min(minus(disk_.total, others + r.disk_bytes.reserved + r.disk_bytes.allocated),
                                 minus(disk_.free, r.disk_bytes.reserved));
    return r;
}

base::Result<void> Capacity::fits(const Demand& demand, std::string_view without) const {
    if (!known()) return base::fail(base::Errc::hypervisor_unavailable, "the host's resources are not known yet");
    const auto r = resources(without);
    if (demand.vcpus > cpus_)
        return base::fail(short_of(base::Errc::insufficient_resources,
                                   fmt::format("{} vCPUs are more than this host's {} CPUs", demand.vcpus, cpus_),
                                   {{"vcpus", demand.vcpus}}, {{"vcpus", cpus_}}));
    if (demand.vcpus > r.cpus.free)
        return base::fail(short_of(base::Errc::insufficient_resources,
                                   fmt::format("{} vCPUs are needed and {:g} are free", demand.vcpus, r.cpus.free),
                                   {{"vcpus", demand.vcpus}}, {{"vcpus", r.cpus.free}}));
    if (demand.memory_mib > r.memory_mib.free)
        return base::fail(short_of(
            base::Errc::insufficient_resources,
            fmt::format("{} MiB of memory are needed and {} MiB are free ({} MiB are reserved for the host's owner)",
                        demand.memory_mib, r.memory_mib.free, r.memory_mib.reserved),
            {{"memory_mib", demand.memory_mib}}, {{"memory_mib", r.memory_mib.free}}));
    return fits_on_disk(demand.disk_bytes);
}

base::Result<void> Capacity::fits_on_disk(std::uint64_t bytes) const {
    const auto disk = resources().disk_bytes;
    if (bytes <= disk.free) return {};
    return base::fail(short_of(
        base::Errc::insufficient_storage,
        fmt::format(
            "{:.1f} GiB of disk are needed and {:.1f} GiB are free ({:.1f} GiB are reserved for the host's owner)",
            gib(bytes), gib(disk.free), gib(disk.reserved)),
        {{"disk_bytes", bytes}}, {{"disk_bytes", disk.free}}));
}

json::object to_json(const Resources& r) {
    return {
        {"cpus", pool_json(r.cpus)}, {"memory_mib", pool_json(r.memory_mib)}, {"disk_bytes", pool_json(r.disk_bytes)}};
}

}  // namespace ghost::agent
