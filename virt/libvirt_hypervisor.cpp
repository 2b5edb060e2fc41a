#include "virt/libvirt_hypervisor.hpp"

#include "virt/domain_changes.hpp"
#include "virt/domain_reads.hpp"
#include "virt/host_objects.hpp"
#include "virt/host_probe.hpp"
#include "virt/libvirt_events.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <utility>

namespace ghost::virt {
namespace {

using base::Errc;
using base::Result;
using boost::asio::awaitable;
using namespace std::chrono_literals;

// How long each call may take before its reader gives up or its change counts as stalled.
constexpr auto list_limit = 30s;
constexpr auto read_limit = 10s;
constexpr auto definition_limit = 30s;
constexpr auto start_limit = 120s;
constexpr auto power_limit = 30s;
constexpr auto save_limit = 300s;
constexpr auto host_object_limit = 60s;

}  // namespace

// What the events lane learned of the host when it connected; any thread.
class LibvirtHypervisor::HostState {
public:
    void set(HostProbe probe) {
        const std::scoped_lock lock{mutex_};
        probe_ = std::move(probe);
    }
    [[nodiscard]] HostProbe get() const {
        const std::scoped_lock lock{mutex_};
        return probe_;
    }

private:
    mutable std::mutex mutex_;
    HostProbe probe_;
};

// Loop only.
struct LibvirtHypervisor::LinkState {
    base::Clock& clock;
    base::Log& log;
    std::shared_ptr<HostState> host;
    std::shared_ptr<EventQueue> events;
    Link link;
    // Domains whose monitor didn't answer, and when to ask again. It may have been the daemon: a new one is asked anew.
    std::map<std::string, base::Instant> silent = {};

    void changed(bool up, std::string reason) {
        const bool turned = up != link.connected;
        if (!turned && reason == link.reason) return;
        if (turned) link.since = clock.wall();
        link.connected = up;
        link.reason = reason;
        if (up) {
            silent.clear();
            link.host = host->get().host;
            log.info("connected to the hypervisor",
                     {{"uri", link.host.uri}, {"kind", link.host.kind}, {"libvirt", link.host.libvirt_version}});
            if (!link.host.no_kvm.empty())
                log.warn("guests are emulated, which is slow", {{"reason", link.host.no_kvm}});
        } else {
            log.warn("no connection to the hypervisor", {{"reason", reason}});
        }
        if (turned) events->push({up ? Event::Kind::link_up : Event::Kind::link_down, {}, std::move(reason)});
    }
};

LibvirtHypervisor::LibvirtHypervisor(boost::asio::io_context& context, std::string uri, base::Clock& clock,
                                     base::Random& random, base::Log& log, LibvirtOptions options)
    : clock_(clock),
      options_(std::move(options)),
      bridge_(context),
      host_(std::make_shared<HostState>()),
      events_(std::make_shared<EventQueue>(context, options_.event_limit)),
      state_(std::make_shared<LinkState>(LinkState{.clock = clock,
                                                   .log = log,
                                                   .host = host_,
                                                   .events = events_,
                                                   .link = {false, clock.wall(), "connecting", {}}})),
      lanes_(context, uri, options_.lanes, clock, random, log) {
    state_->link.host.uri = std::move(uri);
    lanes_.set_hooks(hooks());
}

LibvirtHypervisor::~LibvirtHypervisor() = default;

LaneHooks LibvirtHypervisor::hooks() {
    const auto events = std::make_shared<LibvirtEvents>(events_);
    return {.on_link =
                [state = std::weak_ptr{state_}](bool up, std::string reason) {
                    if (const auto held = state.lock()) held->changed(up, std::move(reason));
                },
            .on_connected = [events, host = host_, type = options_.virt_type,
                             kvm = options_.kvm_device](virConnectPtr c) -> Result<void> {
                auto probe = probe_host(c, type, kvm);
                if (!probe) return std::unexpected{std::move(probe.error())};
                host->set(std::move(*probe));
                return events->subscribe(c);
            },
            .on_closing = [events](virConnectPtr c) { events->unsubscribe(c); }};
}

awaitable<void> LibvirtHypervisor::run() { return lanes_.run(); }

awaitable<void> LibvirtHypervisor::close(std::chrono::milliseconds grace) { return lanes_.close(grace); }

const Link& LibvirtHypervisor::link() const { return state_->link; }

awaitable<Event> LibvirtHypervisor::next_event() { return events_->next(); }

std::vector<LaneStats> LibvirtHypervisor::lanes() const { return lanes_.stats(); }

// ---- Reads. Keyed, so that an older answer never comes after a newer one.

Hypervisor::Task<std::vector<DomainInfo>> LibvirtHypervisor::domains() {
    return lanes_.read<std::vector<DomainInfo>>(LaneClass::query, "domains", list_limit, read_domains);
}

Hypervisor::Task<DomainInfo> LibvirtHypervisor::domain(std::string uuid) {
    LanePool::Work<DomainInfo> work = [uuid](virConnectPtr c) { return read_domain(c, uuid); };
    return lanes_.read<DomainInfo>(LaneClass::query, std::move(uuid), read_limit, std::move(work));
}

Hypervisor::Task<std::vector<DomainState>> LibvirtHypervisor::states() {
    return lanes_.read<std::vector<DomainState>>(LaneClass::query, "states", read_limit, read_states);
}

Hypervisor::Task<std::vector<DiskFile>> LibvirtHypervisor::disk_files() {
    return lanes_.read<std::vector<DiskFile>>(LaneClass::query, "disk files", list_limit, read_disk_files);
}

Result<void> LibvirtHypervisor::check_usage_pause(const std::string& uuid) const {
    // One that was deleted is never asked again.
    std::erase_if(state_->silent, [now = clock_.now()](const auto& silent) { return silent.second + 1h <= now; });
    const auto it = state_->silent.find(uuid);
    if (it == state_->silent.end() || it->second <= clock_.now()) return {};
    return base::fail(Errc::hypervisor_unavailable,
                      "the domain's monitor does not answer; it is left alone for a while");
}

// On the guest lanes: a monitor that doesn't answer must not take a lane from the short reads.
Hypervisor::Task<DomainUsage> LibvirtHypervisor::usage(std::string uuid) {
    if (auto ok = check_usage_pause(uuid); !ok) co_return std::unexpected{std::move(ok.error())};
    const auto begun = std::make_shared<std::atomic<bool>>(false);
    LanePool::Work<DomainUsage> work = [uuid, begun](virConnectPtr c) {
        *begun = true;
        return read_usage(c, uuid);
    };
    auto usage =
        co_await lanes_.read<DomainUsage>(LaneClass::guest, "usage:" + uuid, options_.usage_limit, std::move(work));
    if (usage) {
        usage->taken = clock_.now();
        state_->silent.erase(uuid);
    }
    if (usage || usage.error().code != Errc::deadline_exceeded) co_return usage;
    // One that waited behind the others is not to blame, unless it waited for its own last call.
    if (!*begun && !state_->silent.contains(uuid))
        co_return base::fail(Errc::overloaded, "other guests' calls are waited for");
    state_->silent.insert_or_assign(std::move(uuid), clock_.now() + options_.usage_pause);
    co_return usage;
}

Hypervisor::Task<Addresses> LibvirtHypervisor::addresses(std::string uuid, bool ask_guest) {
    using List = std::vector<std::string>;
    const auto from = [&uuid](AddressSource source) -> LanePool::Work<List> {
        return [uuid, source](virConnectPtr c) { return read_addresses(c, uuid, source, agent_seconds); };
    };
    auto leases = co_await lanes_.read<List>(LaneClass::query, uuid, read_limit, from(AddressSource::leases));
    if (!leases && (!ask_guest || leases.error().code == Errc::cancelled)) co_return base::fail(leases.error());
    if (!ask_guest) co_return Addresses{std::move(*leases), {}};
    auto guest = co_await lanes_.read<List>(LaneClass::guest, uuid, agent_limit, from(AddressSource::guest_agent));
    // A guest without an agent is no failure.
    if (!leases && !guest) co_return base::fail(leases.error());
    co_return Addresses{leases ? std::move(*leases) : List{}, guest ? std::move(*guest) : List{}};
}

// ---- Changes

Hypervisor::Task<void> LibvirtHypervisor::change(std::string uuid, base::Duration limit, DomainWork work,
                                                 Stalled stalled) {
    LanePool::Work<void> job = [uuid, work = std::move(work)](virConnectPtr c) { return work(c, uuid); };
    return lanes_.change<void>(LaneClass::mutate, std::move(uuid), limit, std::move(job), std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::define(DomainSpec spec, Stalled stalled) {
    auto uuid = spec.uuid;
    DomainWork work = [spec = std::move(spec), host = host_](virConnectPtr c, const std::string&) {
        return define_domain(c, spec, host->get().machine);
    };
    return change(std::move(uuid), definition_limit, std::move(work), std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::undefine(std::string uuid, Stalled stalled) {
    return change(std::move(uuid), definition_limit, undefine_domain, std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::start(std::string uuid, Stalled stalled) {
    state_->silent.erase(uuid);  // its next QEMU has a monitor of its own
    return change(std::move(uuid), start_limit, start_domain, std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::request_shutdown(std::string uuid) {
    // The agent's answer may take as long as the guest takes to go down. Past the limit the power button is pressed
    // too: a guest that is on its way ignores it.
    LanePool::Work<void> ask = [uuid](virConnectPtr c) { return shutdown_by_agent(c, uuid, agent_seconds); };
    auto asked = co_await lanes_.read<void>(LaneClass::guest, uuid, agent_limit, std::move(ask));
    if (asked || asked.error().code == Errc::not_found || asked.error().code == Errc::cancelled) co_return asked;
    co_return co_await change(std::move(uuid), power_limit, shutdown_by_power_button, {});
}

Hypervisor::Task<void> LibvirtHypervisor::power_off(std::string uuid, Stalled stalled) {
    LanePool::Work<void> work = [uuid = std::move(uuid)](virConnectPtr c) { return power_off_domain(c, uuid); };
    return lanes_.change<void>(LaneClass::control, {}, power_limit, std::move(work), std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::reset(std::string uuid, Stalled stalled) {
    return change(std::move(uuid), power_limit, reset_domain, std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::pause(std::string uuid, Stalled stalled) {
    return change(std::move(uuid), power_limit, pause_domain, std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::resume(std::string uuid, Stalled stalled) {
    return change(std::move(uuid), power_limit, resume_domain, std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::save(std::string uuid, Stalled stalled) {
    return change(std::move(uuid), save_limit, save_domain, std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::abort_job(std::string uuid) {
    LanePool::Work<void> work = [uuid = std::move(uuid)](virConnectPtr c) { return abort_domain_job(c, uuid); };
    return lanes_.change<void>(LaneClass::control, {}, power_limit, std::move(work), {});
}

Hypervisor::Task<void> LibvirtHypervisor::resize(std::string uuid, unsigned vcpus, std::uint64_t memory_mib,
                                                 Stalled stalled) {
    DomainWork work = [vcpus, memory_mib](virConnectPtr c, const std::string& id) {
        return resize_domain(c, id, vcpus, memory_mib);
    };
    return change(std::move(uuid), definition_limit, std::move(work), std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::set_autostart(std::string uuid, bool on, Stalled stalled) {
    DomainWork work = [on](virConnectPtr c, const std::string& id) { return set_domain_autostart(c, id, on); };
    return change(std::move(uuid), definition_limit, std::move(work), std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::set_record(std::string uuid, std::string record, Stalled stalled) {
    DomainWork work = [record = std::move(record)](virConnectPtr c, const std::string& id) {
        return set_domain_record(c, id, record);
    };
    return change(std::move(uuid), definition_limit, std::move(work), std::move(stalled));
}

Hypervisor::Task<void> LibvirtHypervisor::rename(std::string uuid, std::string name, Stalled stalled) {
    DomainWork work = [name = std::move(name)](virConnectPtr c, const std::string& id) {
        return rename_domain(c, id, name);
    };
    return change(std::move(uuid), definition_limit, std::move(work), std::move(stalled));
}

// ---- Host objects

Hypervisor::Task<NetworkInfo> LibvirtHypervisor::ensure_network(std::string name, Stalled stalled) {
    LanePool::Work<NetworkInfo> work = [name](virConnectPtr c) { return virt::ensure_network(c, name); };
    return lanes_.change<NetworkInfo>(LaneClass::mutate, "network " + name, host_object_limit, std::move(work),
                                      std::move(stalled));
}

Hypervisor::Task<PoolInfo> LibvirtHypervisor::ensure_pool(std::string name, std::string create_at) {
    LanePool::Work<PoolInfo> work = [name, at = std::move(create_at)](virConnectPtr c) {
        return virt::ensure_pool(c, name, at);
    };
    return lanes_.change<PoolInfo>(LaneClass::mutate, "pool " + name, host_object_limit, std::move(work), {});
}

}  // namespace ghost::virt
