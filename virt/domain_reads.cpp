#include "virt/domain_reads.hpp"

#include "virt/domain_state.hpp"
#include "virt/domain_xml.hpp"

#include <boost/asio/ip/address.hpp>
#include <fmt/format.h>

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <span>

namespace ghost::virt {
namespace {

using base::Errc;
using base::Result;

std::string uuid_of(virDomainPtr domain) {
    std::array<char, VIR_UUID_STRING_BUFLEN> text{};
    virDomainGetUUIDString(domain, text.data());
    return text.data();
}

// Every call is a way to the daemon and back, which may be slow: what the state tells isn't asked again.
struct Now {
    PowerState power;
    bool active = false;
    bool saved = false;
};

Result<Now> state_now(virDomainPtr domain) {
    int state = 0;
    int reason = 0;
    if (virDomainGetState(domain, &state, &reason, 0) < 0) return base::fail(last_error());
    Now now;
    // A crashed one may have been kept.
    now.active = state == VIR_DOMAIN_CRASHED ? virDomainIsActive(domain) == 1
                                             : state != VIR_DOMAIN_SHUTOFF && state != VIR_DOMAIN_NOSTATE;
    now.saved = !now.active && virDomainHasManagedSaveImage(domain, 0) == 1;
    now.power = power_of(state, reason, state == VIR_DOMAIN_SHUTOFF && now.saved);
    return now;
}

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

Result<DomainInfo> describe(virDomainPtr domain, const std::string& pids) {
    const CharPtr xml{virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE)};
    if (!xml) return base::fail(last_error());
    auto info = parse_domain_xml(xml.get());
    if (!info) return info;
    auto now = state_now(domain);
    if (!now) return std::unexpected{std::move(now.error())};
    info->power = now->power.power;
    info->power_reason = std::move(now->power.reason);
    info->persistent = virDomainIsPersistent(domain) == 1;
    int autostart = 0;
    info->autostart = info->persistent && virDomainGetAutostart(domain, &autostart) == 0 && autostart != 0;
    info->has_saved_state = now->saved;
    if (now->active) {
        virDomainInfo live{};
        if (virDomainGetInfo(domain, &live) < 0) return base::fail(last_error());
        info->live_vcpus = live.nrVirtCpu;
        info->live_memory_mib = live.maxMem >> 10U;
        info->running_since = running_since(pids, info->name);
    }
    return info;
}

// ---- Typed parameters

struct StatsFree {
    void operator()(virDomainStatsRecordPtr* records) const noexcept { virDomainStatsRecordListFree(records); }
};
using StatsList = std::unique_ptr<virDomainStatsRecordPtr, StatsFree>;

std::span<const virTypedParameter> parameters(const virDomainStatsRecord& record) {
    return {record.params, static_cast<std::size_t>(record.nparams)};
}

const virTypedParameter* parameter(const virDomainStatsRecord& record, std::string_view name) {
    for (const auto& candidate : parameters(record))
        if (name == static_cast<const char*>(candidate.field)) return &candidate;
    return nullptr;
}

std::uint64_t number(const virDomainStatsRecord& record, std::string_view name) {
    const auto* found = parameter(record, name);
    if (found == nullptr) return 0;
    switch (found->type) {
        case VIR_TYPED_PARAM_UINT: return found->value.ui;
        case VIR_TYPED_PARAM_ULLONG: return found->value.ul;
        case VIR_TYPED_PARAM_INT: return found->value.i < 0 ? 0 : static_cast<std::uint64_t>(found->value.i);
        case VIR_TYPED_PARAM_LLONG: return found->value.l < 0 ? 0 : static_cast<std::uint64_t>(found->value.l);
        default: return 0;
    }
}

std::string text(const virDomainStatsRecord& record, std::string_view name) {
    const auto* found = parameter(record, name);
    return found != nullptr && found->type == VIR_TYPED_PARAM_STRING ? found->value.s : std::string{};
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

// Drivers without bulk statistics: one by one.
Result<std::vector<DomainState>> states_one_by_one(virConnectPtr connection) {
    virDomainPtr* list = nullptr;
    const int count = virConnectListAllDomains(connection, &list, 0);
    if (count < 0) return base::fail(last_error("cannot list domains"));
    const std::unique_ptr<virDomainPtr, FreeMalloced> owner{list};
    std::vector<DomainState> states;
    for (auto* const domain : std::span{list, static_cast<std::size_t>(count)}) {
        const DomainPtr held{domain};
        if (auto now = state_now(domain))
            states.push_back({uuid_of(domain), now->power.power, std::move(now->power.reason)});
    }
    return states;
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
    virDomainPtr* list = nullptr;
    const int count = virConnectListAllDomains(connection, &list, 0);
    if (count < 0) return base::fail(last_error("cannot list domains"));
    const std::unique_ptr<virDomainPtr, FreeMalloced> owner{list};
    std::vector<DomainPtr> held;
    for (auto* const domain : std::span{list, static_cast<std::size_t>(count)}) held.emplace_back(domain);
    std::vector<DomainInfo> domains;
    const auto pids = pid_directory(connection);
    for (const auto& domain : held) {
        auto info = describe(domain.get(), pids);
        if (info)
            domains.push_back(std::move(*info));
        else if (info.error().code != Errc::not_found)
            return base::fail(std::move(info.error()));
    }
    return domains;
}

Result<DomainInfo> read_domain(virConnectPtr connection, const std::string& uuid) {
    auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{std::move(domain.error())};
    return describe(domain->get(), pid_directory(connection));
}

Result<std::vector<DomainState>> read_states(virConnectPtr connection) {
    virDomainStatsRecordPtr* list = nullptr;
    const int count = virConnectGetAllDomainStats(connection, VIR_DOMAIN_STATS_STATE, &list, 0);
    if (count < 0) {
        if (virGetLastErrorCode() == VIR_ERR_NO_SUPPORT) return states_one_by_one(connection);
        return base::fail(last_error("cannot read the domains' states"));
    }
    const StatsList owner{list};
    std::vector<DomainState> states;
    for (const auto* const record : std::span{list, static_cast<std::size_t>(count)}) {
        const auto state = static_cast<int>(number(*record, "state.state"));
        const bool saved = state == VIR_DOMAIN_SHUTOFF && virDomainHasManagedSaveImage(record->dom, 0) == 1;
        auto power = power_of(state, static_cast<int>(number(*record, "state.reason")), saved);
        states.push_back({uuid_of(record->dom), power.power, std::move(power.reason)});
    }
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
            if (is_reachable_address(address.addr) && std::ranges::find(addresses, address.addr) == addresses.end())
                addresses.emplace_back(address.addr);
    return addresses;
}

bool is_reachable_address(std::string_view text) {
    boost::system::error_code failed;
    const auto address = boost::asio::ip::make_address(text, failed);
    if (failed || address.is_loopback() || address.is_unspecified() || address.is_multicast()) return false;
    if (address.is_v6()) return !address.to_v6().is_link_local() && !address.to_v6().is_v4_mapped();
    constexpr std::uint32_t link_local = 0xa9fe0000;  // 169.254.0.0/16
    return (address.to_v4().to_uint() & 0xffff0000U) != link_local;
}

}  // namespace ghost::virt
