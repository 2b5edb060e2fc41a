#include "virt/domain_reads.hpp"

#include "virt/domain_stats.hpp"
#include "virt/domain_survey.hpp"
#include "virt/domain_xml.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/ip/address.hpp>
#include <fmt/format.h>

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <span>

namespace ghost::virt {
namespace {

using base::Errc;
using base::Result;

// Where the system's libvirtd keeps the pid files of its QEMUs; empty for any other connection.
std::string pid_directory(virConnectPtr connection) {
    const CharPtr uri{virConnectGetURI(connection)};
    return uri && std::string_view{uri.get()} == "qemu:///system" ? "/run/libvirt/qemu/" : std::string{};
}

// libvirt doesn't tell since when a domain runs; the pid file is written once, when its QEMU starts.
std::optional<base::Wall> running_since(const std::string& directory, const std::string& name) {
    struct stat file{};
    if (directory.empty() || ::stat((directory + name + ".pid").c_str(), &file) != 0) return std::nullopt;
    return base::Wall{std::chrono::duration_cast<base::Wall::duration>(std::chrono::seconds{file.st_mtim.tv_sec} +
                                                                       std::chrono::nanoseconds{file.st_mtim.tv_nsec})};
}

Result<DomainInfo> describe(virDomainPtr domain, DomainNow now, const std::string& pids) {
    const CharPtr xml{virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE)};
    if (!xml) return base::fail(last_error());
    auto info = parse_domain_xml(xml.get());
    if (!info) return info;
    info->power = now.power.power;
    info->power_reason = std::move(now.power.reason);
    info->persistent = now.persistent;
    info->autostart = now.autostart;
    info->has_saved_state = now.saved;
    if (now.active) {
        virDomainInfo live{};
        if (virDomainGetInfo(domain, &live) < 0) return base::fail(last_error());
        info->live_vcpus = live.nrVirtCpu;
        info->live_memory_mib = live.maxMem >> 10U;
        info->running_since = running_since(pids, info->name);
    }
    return info;
}

// libvirt's own `allocation` of a running qcow2 is the highest offset written since it was opened, so it starts at
// zero with every boot: what the file takes is asked of the file system first.
std::uint64_t disk_bytes(const virDomainStatsRecord& record, std::uint64_t index) {
    const auto path = text(record, fmt::format("block.{}.path", index));
    struct stat file{};
    if (!path.empty() && ::stat(path.c_str(), &file) == 0 && S_ISREG(file.st_mode))
        return static_cast<std::uint64_t>(file.st_blocks) * 512;
    return std::max(number(record, fmt::format("block.{}.allocation", index)),
                    number(record, fmt::format("block.{}.physical", index)));
}

// Empty when there is no such volume.
Result<std::string> path_of_volume(virConnectPtr connection, const PoolVolume& what) {
    const StoragePoolPtr pool{virStoragePoolLookupByName(connection, what.pool.c_str())};
    const VolumePtr volume{pool ? virStorageVolLookupByName(pool.get(), what.volume.c_str()) : nullptr};
    const CharPtr path{volume ? virStorageVolGetPath(volume.get()) : nullptr};
    if (path) return std::string{path.get()};
    auto error = last_error(fmt::format("cannot tell where the volume {} of the pool {} is", what.volume, what.pool));
    if (error.code == Errc::not_found) return std::string{};
    return base::fail(std::move(error));
}

struct InterfacesFree {
    int count = 0;
    void operator()(virDomainInterfacePtr* list) const noexcept {
        for (auto* const one : std::span{list, static_cast<std::size_t>(count)}) virDomainInterfaceFree(one);
        FreeMalloced{}(list);
    }
};

}  // namespace

Result<DomainPtr> find_domain(virConnectPtr connection, const std::string& uuid) {
    DomainPtr domain{virDomainLookupByUUIDString(connection, uuid.c_str())};
    if (!domain) return base::fail(last_error());
    return domain;
}

Result<std::vector<DomainInfo>> read_domains(virConnectPtr connection) {
    const auto survey = survey_all(connection);
    if (!survey) return base::fail(survey.error());
    // Listed last: one that came since is asked on its own, and those that went are left out.
    const auto listed = list_domains(connection);
    if (!listed) return base::fail(listed.error());
    std::vector<DomainInfo> domains;
    const auto pids = pid_directory(connection);
    for (const auto& domain : *listed) {
        const auto known = survey->find(uuid_of(domain.get()));
        auto now = known == survey->end() ? survey_one(domain.get()) : Result<DomainNow>{known->second};
        auto info = now ? describe(domain.get(), std::move(*now), pids) : base::fail(std::move(now.error()));
        if (info)
            domains.push_back(std::move(*info));
        else if (info.error().code != Errc::not_found)
            return base::fail(std::move(info.error()));
    }
    return domains;
}

Result<DomainInfo> read_domain(virConnectPtr connection, const std::string& uuid) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return base::fail(domain.error());
    auto now = survey_one(domain->get());
    if (!now) return base::fail(std::move(now.error()));
    return describe(domain->get(), std::move(*now), pid_directory(connection));
}

Result<std::vector<DiskFile>> read_disk_files(virConnectPtr connection) {
    const auto listed = list_domains(connection);
    if (!listed) return base::fail(listed.error());
    DiskSources all;
    for (const auto& domain : *listed)
        // What runs may have other disks than what is defined.
        for (const unsigned flags : {0U, unsigned{VIR_DOMAIN_XML_INACTIVE}}) {
            const CharPtr xml{virDomainGetXMLDesc(domain.get(), flags)};
            if (!xml) {
                auto error = last_error();
                if (error.code == Errc::not_found) break;  // it went away
                return base::fail(std::move(error));
            }
            auto found = disk_sources_of(xml.get());
            if (!found) return base::fail(std::move(found.error()));
            all.files.merge(found->files);
            all.volumes.merge(found->volumes);
        }
    for (const auto& volume : all.volumes) {
        auto path = path_of_volume(connection, volume);
        if (!path) return base::fail(std::move(path.error()));
        if (!path->empty()) all.files.insert({std::move(*path), volume.format});
    }
    return std::vector(all.files.begin(), all.files.end());
}

Result<std::vector<DomainState>> read_states(virConnectPtr connection) {
    auto survey = survey_power(connection);
    if (!survey) return base::fail(survey.error());
    std::vector<DomainState> states;
    for (auto& [uuid, now] : *survey) states.push_back({uuid, now.power.power, std::move(now.power.reason)});
    return states;
}

Result<DomainUsage> read_usage(virConnectPtr connection, const std::string& uuid) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    virDomainInfo info{};
    if (virDomainGetInfo(domain->get(), &info) < 0) return base::fail(last_error());
    // No call of its own: each is a way there and back, and the daemon may be slow.
    if (info.state == VIR_DOMAIN_SHUTOFF || info.state == VIR_DOMAIN_CRASHED)
        return base::fail(Errc::state_conflict, "the domain does not run");
    DomainUsage usage;
    usage.cpu_time_ns = info.cpuTime;
    usage.memory_mib = info.memory >> 10U;

    std::array<virDomainPtr, 2> wanted{domain->get(), nullptr};
    virDomainStatsRecordPtr* list = nullptr;
    const int count = virDomainListGetStats(wanted.data(), VIR_DOMAIN_STATS_BALLOON | VIR_DOMAIN_STATS_BLOCK, &list, 0);
    if (count < 0) {
        if (virGetLastErrorCode() == VIR_ERR_NO_SUPPORT) return usage;
        return base::fail(last_error("cannot read what the domain uses"));
    }
    const StatsList owner{list};
    if (count == 0) return base::fail(Errc::not_found, "the domain went away");
    const auto& record = *list[0];
    if (const auto resident_kib = number(record, "balloon.rss"); resident_kib > 0)
        usage.memory_mib = resident_kib >> 10U;
    const auto blocks = number(record, "block.count");
    for (std::uint64_t i = 0; i < blocks; ++i) usage.disk_bytes += disk_bytes(record, i);
    return usage;
}

Result<std::vector<std::string>> read_addresses(virConnectPtr connection, const std::string& uuid, AddressSource source,
                                                int agent_seconds) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    std::vector<std::string> addresses;
    if (virDomainIsActive(domain->get()) != 1) return addresses;
    const bool ask_guest = source == AddressSource::guest_agent;
    if (ask_guest && virDomainAgentSetResponseTimeout(domain->get(), agent_seconds, 0) < 0)
        return base::fail(last_error("cannot ask the guest agent"));
    virDomainInterfacePtr* list = nullptr;
    const int count = virDomainInterfaceAddresses(
        domain->get(), &list,
        ask_guest ? VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT : VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, 0);
    if (count < 0) return base::fail(last_error("cannot read the domain's addresses"));
    const std::unique_ptr<virDomainInterfacePtr, InterfacesFree> owner{list, InterfacesFree{count}};
    for (const auto* const nic : std::span{list, static_cast<std::size_t>(count)})
        for (const auto& address : std::span{nic->addrs, nic->naddrs})
            if (auto reachable = reachable_address(address.addr);
                reachable && addresses.size() < max_addresses &&
                std::ranges::find(addresses, *reachable) == addresses.end())
                addresses.push_back(*std::move(reachable));
    return addresses;
}

std::optional<std::string> reachable_address(std::string_view text) {
    boost::system::error_code failed;
    auto address = boost::asio::ip::make_address(text, failed);
    if (failed || address.is_loopback() || address.is_unspecified() || address.is_multicast()) return std::nullopt;
    if (address.is_v6()) {
        auto v6 = address.to_v6();
        if (v6.is_link_local() || v6.is_v4_mapped()) return std::nullopt;
        v6.scope_id(0);
        return v6.to_string();
    }
    constexpr std::uint32_t link_local = 0xa9fe0000;  // 169.254.0.0/16
    if ((address.to_v4().to_uint() & 0xffff0000U) == link_local) return std::nullopt;
    return address.to_string();
}

}  // namespace ghost::virt
