// The calls of virt::Hypervisor: what each does to the map.
#include "tests/fakes/fake_hypervisor.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <utility>

namespace ghost::fakes {
namespace {

using base::Errc;
using base::Result;
using virt::DomainInfo;
using virt::Power;

std::unexpected<base::Error> no_domain(const std::string& uuid) {
    return base::fail(Errc::not_found, "no domain with uuid " + uuid);
}
std::unexpected<base::Error> wrong_state(const DomainInfo& domain) {
    return base::fail(Errc::state_conflict, "domain is " + std::string{virt::name_of(domain.power)});
}

}  // namespace

// ---- Reads

FakeHypervisor::Task<std::vector<DomainInfo>> FakeHypervisor::domains() {
    if (const auto entered = co_await enter_read("domains"); !entered) co_return base::fail(entered.error());
    std::vector<DomainInfo> out;
    out.reserve(domains_.size());
    for (const auto& [uuid, domain] : domains_) out.push_back(domain);
    co_await leave_read("domains");
    co_return out;
}

FakeHypervisor::Task<DomainInfo> FakeHypervisor::domain(std::string uuid) {
    if (const auto entered = co_await enter_read("domain"); !entered) co_return base::fail(entered.error());
    const auto it = domains_.find(uuid);
    Result<DomainInfo> found = it == domains_.end() ? no_domain(uuid) : Result<DomainInfo>{it->second};
    co_await leave_read("domain");
    co_return found;
}

FakeHypervisor::Task<std::vector<virt::DomainState>> FakeHypervisor::states() {
    if (const auto entered = co_await enter_read("states"); !entered) co_return base::fail(entered.error());
    std::vector<virt::DomainState> out;
    out.reserve(domains_.size());
    for (const auto& [uuid, domain] : domains_) out.push_back({uuid, domain.power, domain.power_reason});
    co_return out;
}

FakeHypervisor::Task<std::vector<virt::DiskFile>> FakeHypervisor::disk_files() {
    if (const auto entered = co_await enter_read("disk_files"); !entered) co_return base::fail(entered.error());
    auto out = live_disks_;
    for (const auto& [uuid, domain] : domains_)
        for (const auto& disk : domain.disks)
            if (!disk.path.empty()) out.push_back({disk.path, disk.format});
    co_await leave_read("disk_files");
    co_return out;
}

FakeHypervisor::Task<virt::DomainUsage> FakeHypervisor::usage(std::string uuid) {
    if (const auto entered = co_await enter_read("usage", uuid); !entered) co_return base::fail(entered.error());
    const auto it = domains_.find(uuid);
    if (it == domains_.end()) co_return no_domain(uuid);
    if (it->second.live_vcpus == 0) co_return wrong_state(it->second);
    auto usage = usage_.contains(uuid) ? usage_.at(uuid) : virt::DomainUsage{};
    usage.taken = clock_.now();
    co_return usage;
}

FakeHypervisor::Task<virt::Addresses> FakeHypervisor::addresses(std::string uuid, bool ask_guest) {
    if (const auto entered = co_await enter_read("addresses", uuid); !entered) co_return base::fail(entered.error());
    const auto it = domains_.find(uuid);
    if (it == domains_.end()) co_return no_domain(uuid);
    const auto known = addresses_.find(uuid);
    if (known == addresses_.end() || it->second.power != Power::running) co_return virt::Addresses{};
    co_return virt::Addresses{known->second.first, ask_guest ? known->second.second : std::vector<std::string>{}};
}

// ---- Changes

Result<void> FakeHypervisor::add(const virt::DomainSpec& spec) {
    for (const auto& [uuid, domain] : domains_)
        if (uuid == spec.uuid || domain.name == spec.name)
            return base::fail(Errc::already_exists, "domain " + domain.name + " (" + uuid + ") exists");
    DomainInfo domain{.uuid = spec.uuid,
                      .name = spec.name,
                      .power = Power::off,
                      .power_reason = "unknown",
                      .autostart = spec.autostart,
                      .vcpus = spec.vcpus,
                      .memory_mib = spec.memory_mib,
                      .firmware = spec.firmware,
                      .disks = {},
                      .nics = {},
                      .record = spec.record,
                      .running_since = std::nullopt};
    char letter = 'a';
    for (const auto& disk : spec.disks)
        domain.disks.push_back({std::string{"vd"} + letter++, disk.name, disk.path, "qcow2", false});
    if (!spec.seed_path.empty()) domain.disks.push_back({"sda", "", spec.seed_path, "raw", true});
    for (const auto& nic : spec.nics) domain.nics.push_back({nic.mac, nic.network, "virtio"});
    domains_.emplace(spec.uuid, std::move(domain));
    specs_.insert_or_assign(spec.uuid, spec);
    tell(spec.uuid, "defined");
    return {};
}

FakeHypervisor::Task<void> FakeHypervisor::define(virt::DomainSpec spec, Stalled stalled) {
    Effect effect = [this, spec = std::move(spec)] { return add(spec); };
    return change("define", std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::undefine(std::string uuid, Stalled stalled) {
    Effect effect = [this, uuid = std::move(uuid)]() -> Result<void> {
        const auto it = domains_.find(uuid);
        if (it == domains_.end()) return {};
        it->second.persistent = true;  // stop() forgets a transient one
        if (it->second.live_vcpus > 0) stop(it->second, Power::off, "destroyed");
        domains_.erase(it);
        specs_.erase(uuid);
        tell(uuid, "undefined");
        return {};
    };
    return change("undefine", std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::start(std::string uuid, Stalled stalled) {
    DomainEffect effect = [this](DomainInfo& domain) -> Result<void> {
        if (domain.live_vcpus > 0) return wrong_state(domain);
        domain.power_reason = domain.has_saved_state ? "restored" : "booted";
        domain.has_saved_state = false;
        domain.power = Power::running;
        match_live(domain);
        if (const auto* spec = spec_of(domain.uuid); spec != nullptr && on_started) on_started(*spec);
        tell(domain.uuid, "started");
        return {};
    };
    return change_domain("start", std::move(uuid), std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::request_shutdown(std::string uuid) {
    DomainEffect effect = [this](DomainInfo& domain) -> Result<void> {
        if (domain.power != Power::running) return wrong_state(domain);
        const auto how = shutdown_.find(domain.uuid);
        if (how != shutdown_.end() && how->second == Shutdown::ignore) return {};
        boost::asio::post(context_, [this, alive = alive_, id = domain.uuid] {
            if (*alive) guest_powers_off(id);
        });
        return {};
    };
    return change_domain("request_shutdown", std::move(uuid), {}, std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::power_off(std::string uuid, Stalled stalled) {
    DomainEffect effect = [this](DomainInfo& domain) -> Result<void> {
        if (domain.live_vcpus > 0) stop(domain, Power::off, "destroyed");
        return {};
    };
    return change_domain("power_off", std::move(uuid), std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::reset(std::string uuid, Stalled stalled) {
    DomainEffect effect = [this](DomainInfo& domain) -> Result<void> {
        if (domain.live_vcpus == 0) return wrong_state(domain);
        tell(domain.uuid, "rebooted");
        return {};
    };
    return change_domain("reset", std::move(uuid), std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::pause(std::string uuid, Stalled stalled) {
    DomainEffect effect = [this](DomainInfo& domain) -> Result<void> {
        if (domain.power != Power::running) return wrong_state(domain);
        domain.power = Power::paused;
        domain.power_reason = "user";
        tell(domain.uuid, "suspended");
        return {};
    };
    return change_domain("pause", std::move(uuid), std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::resume(std::string uuid, Stalled stalled) {
    DomainEffect effect = [this](DomainInfo& domain) -> Result<void> {
        if (domain.power != Power::paused) return wrong_state(domain);
        domain.power = Power::running;
        domain.power_reason = "unpaused";
        tell(domain.uuid, "resumed");
        return {};
    };
    return change_domain("resume", std::move(uuid), std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::save(std::string uuid, Stalled stalled) {
    DomainEffect effect = [this, before = aborts_[uuid]](DomainInfo& domain) -> Result<void> {
        if (aborts_[domain.uuid] != before) return base::fail(Errc::hypervisor_error, "the job was aborted");
        if (domain.live_vcpus == 0 || !domain.persistent) return wrong_state(domain);
        domain.has_saved_state = true;
        stop(domain, Power::suspended, "saved");
        return {};
    };
    return change_domain("save", std::move(uuid), std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::abort_job(std::string uuid) {
    DomainEffect effect = [this](DomainInfo& domain) -> Result<void> {
        ++aborts_[domain.uuid];
        for (const auto& waiting : waiting_) {
            if (waiting->call != "save" || waiting->uuid != domain.uuid) continue;
            waiting->released = true;
            waiting->gate.cancel();
        }
        return {};
    };
    return change_domain("abort_job", std::move(uuid), {}, std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::resize(std::string uuid, unsigned vcpus, std::uint64_t memory_mib,
                                                  Stalled stalled) {
    DomainEffect effect = [this, vcpus, memory_mib](DomainInfo& domain) -> Result<void> {
        domain.vcpus = vcpus;
        domain.memory_mib = memory_mib;
        tell(domain.uuid, "defined");
        return {};
    };
    return change_domain("resize", std::move(uuid), std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::set_autostart(std::string uuid, bool on, Stalled stalled) {
    DomainEffect effect = [on](DomainInfo& domain) -> Result<void> {
        domain.autostart = on;  // libvirt tells nobody
        return {};
    };
    return change_domain("set_autostart", std::move(uuid), std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::set_record(std::string uuid, std::string record, Stalled stalled) {
    DomainEffect effect = [this, record = std::move(record)](DomainInfo& domain) -> Result<void> {
        domain.record = record;
        tell(domain.uuid, "metadata_changed");
        return {};
    };
    return change_domain("set_record", std::move(uuid), std::move(stalled), std::move(effect));
}

FakeHypervisor::Task<void> FakeHypervisor::rename(std::string uuid, std::string name, Stalled stalled) {
    DomainEffect effect = [this, name = std::move(name)](DomainInfo& domain) -> Result<void> {
        if (domain.name == name) return {};
        if (domain.live_vcpus > 0) return wrong_state(domain);
        for (const auto& [other, known] : domains_)
            if (known.name == name && other != domain.uuid)
                return base::fail(Errc::already_exists, "domain " + name + " exists");
        domain.name = name;
        tell(domain.uuid, "defined");
        return {};
    };
    return change_domain("rename", std::move(uuid), std::move(stalled), std::move(effect));
}

// ---- Host objects

FakeHypervisor::Task<virt::NetworkInfo> FakeHypervisor::ensure_network(std::string name, Stalled stalled) {
    virt::NetworkInfo found;
    Effect effect = [this, &name, &found]() -> Result<void> {
        auto it = networks_.find(name);
        if (it == networks_.end()) {
            if (name != "default") return base::fail(Errc::not_found, "no network " + name);
            it = networks_.emplace(name, virt::NetworkInfo{name, false, "virbr0"}).first;
        }
        it->second.active = true;
        found = it->second;
        return {};
    };
    // Not as a domain's changes: nothing is left to happen once nobody waits, so the effect may look at what is here.
    if (const auto done = co_await change("ensure_network", std::move(stalled), std::move(effect), Late::lost); !done)
        co_return base::fail(done.error());
    co_return found;
}

FakeHypervisor::Task<virt::PoolInfo> FakeHypervisor::ensure_pool(std::string name, std::string create_at) {
    virt::PoolInfo found;
    Effect effect = [this, &name, &create_at, &found]() -> Result<void> {
        auto it = pools_.find(name);
        if (it == pools_.end()) {
            if (create_at.empty()) return base::fail(Errc::not_found, "no storage pool " + name);
            it = pools_.emplace(name, virt::PoolInfo{name, create_at}).first;
        }
        found = it->second;
        return {};
    };
    if (const auto done = co_await change("ensure_pool", {}, std::move(effect), Late::lost); !done)
        co_return base::fail(done.error());
    co_return found;
}

}  // namespace ghost::fakes
