#include "agent/vm/guest_sampler.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::minutes address_patience{5};  // how long a VM without an address is asked after every 2 s

// However its sampling ends, the VM may be sampled again.
class UnderWay {
public:
    UnderWay(std::set<std::string, std::less<>>& all, std::string id) : all_(all), id_(std::move(id)) {
        all_.insert(id_);
    }
    ~UnderWay() { all_.erase(id_); }
    UnderWay(const UnderWay&) = delete;
    UnderWay& operator=(const UnderWay&) = delete;

private:
    std::set<std::string, std::less<>>& all_;
    std::string id_;
};

}  // namespace

asio::awaitable<void> GuestSampler::run() {
    // The workers belong to this coroutine: they end with it.
    co_await asio::this_coro::throw_if_cancelled(false);
    auto next_full = clock_.now();
    do {
        if (!ready()) continue;
        const auto now = clock_.now();
        const bool full = now >= next_full;
        if (full) next_full = now + interval;
        want_all(full);
    } while (co_await clock_.sleep_for(address_interval));
    due_.clear();
    workers_.cancel();
    co_await workers_.drain();
}

void GuestSampler::forget(std::string_view id) {
    if (const auto it = sampled_.find(id); it != sampled_.end()) sampled_.erase(it);
}

void GuestSampler::want_all(bool usage) {
    for (const auto& [id, vm] : index_.all()) {
        if (vm.observed.power != virt::Power::running || under_way_.contains(id)) continue;
        const auto waiting = std::ranges::find(due_, id, &Due::id);
        if (waiting == due_.end())
            due_.push_back({id, usage});
        else
            waiting->usage = waiting->usage || usage;
    }
    const auto workers = std::min(at_once, workers_.size() + due_.size());
    while (workers_.size() < workers) workers_.spawn("guests' figures", work());
}

asio::awaitable<void> GuestSampler::work() {
    while (!due_.empty() && ready()) {
        const auto next = std::move(due_.front());
        due_.pop_front();
        const UnderWay guard{under_way_, next.id};
        // Figures first: an agent in the guest may take its time.
        if (next.usage) co_await sample_usage(next.id);
        co_await sample_addresses(next.id);
    }
}

asio::awaitable<void> GuestSampler::sample_usage(std::string id) {
    const auto* vm = index_.find(id);
    if (vm == nullptr) co_return;
    const auto running_since = vm->observed.running_since;
    const auto usage = co_await hypervisor_.usage(id);
    vm = index_.find(id);
    // One that was started anew meanwhile is another QEMU.
    if (vm == nullptr || !is_running(*vm) || vm->observed.running_since != running_since) co_return;
    if (!usage) {
        co_await usage_missing(std::move(id), usage.error());
        co_return;
    }
    auto& last = sampled_[id];
    auto seen = vm->observed;
    VmUsage now{.cpu_percent = 0, .memory_mib = usage->memory_mib, .disk_bytes = usage->disk_bytes};
    const auto span = std::chrono::duration<double, std::nano>(usage->taken - last.taken).count();
    if (last.taken != base::Instant{} && span > 0 && usage->cpu_time_ns >= last.cpu_time_ns)
        now.cpu_percent = 100.0 * static_cast<double>(usage->cpu_time_ns - last.cpu_time_ns) / span;
    last.cpu_time_ns = usage->cpu_time_ns;
    last.taken = usage->taken;
    if (seen.monitor_silent) log_.info("the VM's monitor answers again", {{"vm", id}, {"name", vm->name}});
    seen.monitor_silent = false;
    seen.usage = now;
    index_.observe(id, std::move(seen));
}

// Only a call that was begun and didn't come back says something about the VM; and nothing, if libvirt itself is
// silent.
asio::awaitable<void> GuestSampler::usage_missing(std::string id, base::Error why) {
    const auto* vm = index_.find(id);
    if (why.code != base::Errc::deadline_exceeded || vm == nullptr || vm->observed.monitor_silent) co_return;
    const auto running_since = vm->observed.running_since;
    if (!co_await hypervisor_.states()) co_return;
    vm = index_.find(id);
    if (vm == nullptr || vm->observed.power != virt::Power::running || vm->observed.running_since != running_since)
        co_return;
    log_.warn("the VM's monitor doesn't answer: its figures are old", {{"vm", id}, {"name", vm->name}});
    auto seen = vm->observed;
    seen.monitor_silent = true;
    index_.observe(id, std::move(seen));
}

asio::awaitable<void> GuestSampler::sample_addresses(std::string id) {
    const auto* vm = index_.find(id);
    if (vm == nullptr || vm->observed.power != virt::Power::running) co_return;
    const auto now = clock_.now();
    auto& last = sampled_[id];
    if (last.first_seen == base::Instant{}) last.first_seen = now;
    const bool none = vm->observed.addresses.empty();
    const bool eager = none && now - last.first_seen < address_patience;
    const bool guest_due = now - last.asked_guest >= agent_interval;
    if (!eager && !guest_due) co_return;
    if (guest_due) last.asked_guest = now;
    auto addresses = co_await hypervisor_.addresses(id, guest_due);
    vm = index_.find(id);
    if (!addresses || vm == nullptr || !is_running(*vm)) co_return;
    std::set<std::string> all{addresses->leases.begin(), addresses->leases.end()};
    for (const auto& address : addresses->guest)
        if (all.size() < virt::max_addresses) all.insert(address);
    // A guest that is busy rebooting answers nothing; what it had is kept until it is off or says otherwise.
    if (all.empty()) co_return;
    auto seen = vm->observed;
    seen.addresses.assign(all.begin(), all.end());
    seen.leases.assign(addresses->leases.begin(), addresses->leases.end());
    seen.addresses_from = addresses->leases.empty() ? "guest_agent" : "dhcp_lease";
    index_.observe(id, std::move(seen));
}

}  // namespace ghost::agent
