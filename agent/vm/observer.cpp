#include "agent/vm/observer.hpp"

#include "agent/vm/vm_document.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <exception>
#include <set>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::seconds resync_pause{5};  // after a full reading that failed

}  // namespace

Observer::Observer(asio::any_io_executor executor, virt::Hypervisor& hypervisor, VmIndex& index, base::Clock& clock,
                   base::Log& log)
    : hypervisor_(hypervisor),
      index_(index),
      clock_(clock),
      log_(log),
      guests_(executor, hypervisor, index, clock, log),
      readiness_(executor, hypervisor, index, clock, log),
      host_keys_(executor, hypervisor, index, clock, log),
      refreshers_(executor, log),
      synced_changed_(executor) {
    index_.on_erased = [this](std::string_view id) {
        order_.deleted(id);
        forget_guest(id);
    };
    guests_.ready = [this] { return synced_; };
    readiness_.ready = [this] { return synced_; };
    host_keys_.ready = [this] { return synced_; };
}

void Observer::forget_guest(std::string_view id) {
    guests_.forget(id);
    readiness_.forget(id);
    host_keys_.forget(id);
}

// The same QEMU, but cloud-init runs again.
void Observer::boots_anew(std::string_view id) {
    readiness_.forget(id);
    host_keys_.forget(id);
    const auto* vm = index_.find(id);
    if (vm == nullptr) return;
    auto seen = vm->observed;
    seen.guest = {};
    seen.ssh_host_keys.clear();
    index_.observe(id, std::move(seen));
}

asio::awaitable<void> Observer::follow_events() {
    // The refreshers belong to this coroutine: they end with it, also when its end comes while it waits.
    co_await asio::this_coro::throw_if_cancelled(false);
    std::exception_ptr end;
    try {
        co_await take_events();
    } catch (...) {
        end = std::current_exception();
    }
    refreshers_.cancel();
    co_await refreshers_.drain();
    if (end) std::rethrow_exception(end);
}

asio::awaitable<void> Observer::take_events() {
    while ((co_await asio::this_coro::cancellation_state).cancelled() == asio::cancellation_type::none) {
        const auto event = co_await hypervisor_.next_event();
        switch (event.kind) {
            case virt::Event::Kind::link_up:
            case virt::Event::Kind::overflow: co_await resync(); break;
            case virt::Event::Kind::link_down: link_lost(); break;
            case virt::Event::Kind::domain:
                log_.debug("domain event", {{"vm", event.uuid}, {"event", event.what}});
                if (event.what == "rebooted") boots_anew(event.uuid);
                want_refresh(event.uuid);
                break;
            case virt::Event::Kind::network:
                log_.info("network event", {{"network", event.uuid}, {"event", event.what}});
                break;
        }
    }
}

void Observer::link_lost() {
    synced_ = false;
    // What was seen stays, with the time it was seen: reads go on from memory.
    synced_changed_.notify();
}

asio::awaitable<base::Result<std::size_t>> Observer::read_all() {
    const ReadingOrder::Reading reading{order_};
    const auto domains = co_await hypervisor_.domains();
    if (!domains) co_return base::fail(domains.error());
    std::set<std::string, std::less<>> seen;
    for (const auto& domain : *domains) {
        seen.insert(domain.uuid);
        if (reading.accept(domain.uuid)) apply(domain);
    }
    std::vector<std::string> gone;
    for (const auto& [id, vm] : index_.all())
        if (!seen.contains(id)) gone.push_back(id);
    for (const auto& id : gone)
        if (reading.accept(id)) vanished(id);
    co_return domains->size();
}

asio::awaitable<void> Observer::resync() {
    while (hypervisor_.link().connected) {
        const auto read = co_await read_all();
        if (read) {
            if (on_sync) co_await on_sync();
            synced_ = true;
            synced_changed_.notify();
            log_.info("read all domains", {{"domains", *read}});
            co_return;
        }
        // The caller's end; a pause would sleep through it.
        if (read.error().code == base::Errc::cancelled) co_return;
        log_.warn("the domains can't be read; trying again", {{"error", read.error().detail}});
        if (!co_await clock_.sleep_for(resync_pause)) co_return;
    }
}

asio::awaitable<void> Observer::reread_forever() {
    while (co_await clock_.sleep_for(reread_interval)) {
        if (!synced_) continue;
        if (const auto read = co_await read_all(); !read)
            log_.debug("the domains can't be read again", {{"error", read.error().detail}});
    }
}

void Observer::want_refresh(std::string id) {
    pending_.insert(std::move(id));
    if (refreshers_.size() < refreshes_at_once) refreshers_.spawn("refresh", refresh_pending());
}

asio::awaitable<void> Observer::refresh_pending() {
    while (!pending_.empty()) {
        auto id = std::move(pending_.extract(pending_.begin()).value());
        co_await refresh(std::move(id));
    }
}

asio::awaitable<void> Observer::refresh(std::string id) {
    const ReadingOrder::Reading reading{order_};
    const auto domain = co_await hypervisor_.domain(id);
    if (!domain && domain.error().code != base::Errc::not_found) {
        log_.debug("a domain can't be read", {{"vm", id}, {"error", domain.error().detail}});
        co_return;
    }
    if (!reading.accept(id)) co_return;
    if (domain)
        apply(*domain);
    else
        vanished(id);
}

// A domain that is new to us, and null if it isn't to stay: ours if its record says so (the database was lost), other
// people's otherwise.
const Vm* Observer::take_up(const virt::DomainInfo& domain) {
    if (domain.record) {
        auto ours = vm_from_document(*domain.record);
        if (ours && ours->id == domain.uuid && ours->name == domain.name && is_ours && is_ours(*ours)) {
            if (is_gone && is_gone(*ours)) {
                log_.warn("a domain turned up of a VM that is gone; it is taken away",
                          {{"vm", domain.uuid}, {"name", domain.name}});
                if (on_leftover) on_leftover(*ours);
                return nullptr;
            }
            ours->phase = Phase::ready;
            log_.warn("a VM of ours was missing in the database; it is known again by its domain",
                      {{"vm", domain.uuid}, {"name", domain.name}});
            index_.put(std::move(*ours));
            const auto* vm = index_.find(domain.uuid);
            if (on_recognised) on_recognised(*vm);
            return vm;
        }
    }
    auto found = vm_from_domain(domain);
    found.created_at = clock_.wall();
    index_.put(std::move(found));
    return index_.find(domain.uuid);
}

void Observer::apply(const virt::DomainInfo& domain) {
    const auto* vm = index_.find(domain.uuid);
    if (vm == nullptr) {
        vm = take_up(domain);
        if (vm == nullptr) return;
    } else if (!vm->managed) {
        auto now = vm_from_domain(domain);
        if (to_document(now) != to_document(*vm)) {
            now.created_at = vm->created_at;
            index_.put(std::move(now));
        }
    }
    auto seen = vm->observed;
    const bool ran = is_running(*vm);
    seen.present = true;
    seen.power = domain.power;
    seen.power_reason = domain.power_reason;
    seen.live_vcpus = domain.live_vcpus;
    seen.live_memory_mib = domain.live_memory_mib;
    seen.macs.clear();
    for (const auto& nic : domain.nics) {
        auto mac = nic.mac;
        for (auto& c : mac)
            if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
        if (!mac.empty()) seen.macs.push_back(std::move(mac));
    }
    seen.disk_paths.clear();
    for (const auto& disk : domain.disks)
        if (!disk.path.empty()) seen.disk_paths.push_back(disk.path);
    std::erase_if(seen.missing_files, [&seen](const std::string& path) {
        return std::ranges::find(seen.disk_paths, path) == seen.disk_paths.end();
    });
    seen.at = clock_.wall();
    // A paused one isn't asked, so nothing would take it back.
    if (domain.power != virt::Power::running) seen.monitor_silent = false;
    const bool runs = domain.power == virt::Power::running || domain.power == virt::Power::paused;
    if (!runs) {
        seen.addresses.clear();
        seen.addresses_from.clear();
        seen.leases.clear();
        seen.running_since.reset();
        seen.usage.reset();
        seen.guest = {};
        seen.ssh_host_keys.clear();
        forget_guest(domain.uuid);
    } else if (domain.running_since) {
        // It was off in between, and nobody told.
        if (seen.running_since && seen.running_since != domain.running_since) {
            seen.guest = {};
            seen.ssh_host_keys.clear();
            readiness_.forget(domain.uuid);
            host_keys_.forget(domain.uuid);
        }
        seen.running_since = domain.running_since;
    } else if (!ran || !seen.running_since) {
        seen.running_since = clock_.wall();
    }
    index_.observe(domain.uuid, std::move(seen));
}

void Observer::vanished(std::string_view id) {
    const auto* vm = index_.find(id);
    if (vm == nullptr) return;
    forget_guest(id);
    if (!vm->managed) {
        index_.erase(id);
        return;
    }
    Observed seen;
    seen.power = vm->phase == Phase::ready ? virt::Power::unknown : virt::Power::off;
    seen.forwards = vm->observed.forwards;  // of this host's ports, whatever the hypervisor has
    seen.at = clock_.wall();
    index_.observe(id, std::move(seen));
}

asio::awaitable<void> Observer::sample_states_forever() {
    do {
        if (synced_) co_await sample_states();
    } while (co_await clock_.sleep_for(sample_interval));
}

asio::awaitable<void> Observer::sample_states() {
    const auto states = co_await hypervisor_.states();
    if (!states) {
        log_.debug("the domains' states can't be sampled", {{"error", states.error().detail}});
        co_return;
    }
    std::set<std::string, std::less<>> seen_ids;
    for (const auto& state : *states) {
        seen_ids.insert(state.uuid);
        const auto* vm = index_.find(state.uuid);
        // What the events told already needs no second look; what they missed is read in full.
        if (vm == nullptr || !vm->observed.present || vm->observed.power != state.power) {
            want_refresh(state.uuid);
            continue;
        }
        auto seen = vm->observed;
        seen.at = clock_.wall();
        seen.power_reason = state.power_reason;
        index_.observe(state.uuid, std::move(seen));
    }
    for (const auto& [id, vm] : index_.all())
        if (vm.observed.present && !seen_ids.contains(id)) want_refresh(id);
}

}  // namespace ghost::agent
