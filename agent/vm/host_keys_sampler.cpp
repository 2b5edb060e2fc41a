#include "agent/vm/host_keys_sampler.hpp"

#include "agent/guest/ssh_host_keys.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::minutes early{10};
constexpr std::chrono::seconds question_limit{30};
constexpr std::size_t max_output = std::size_t{32} * 1024;

// Whether an agent answers that runs programs, as far as its readiness tells.
bool can_be_asked(const Vm& vm) {
    const auto& reason = vm.observed.guest.reason;
    return vm.managed && vm.observed.power == virt::Power::running && reason != "no_guest_agent" &&
           reason != "guest_exec_not_allowed" && reason != "guest_exec_failed";
}

}  // namespace

asio::awaitable<void> HostKeysSampler::run() {
    // The askers belong to this coroutine: they end with it.
    co_await asio::this_coro::throw_if_cancelled(false);
    do {
        if (ready()) ask_those_due();
    } while (co_await clock_.sleep_for(interval));
    askers_.cancel();
    co_await askers_.drain();
}

void HostKeysSampler::forget(std::string_view id) {
    if (const auto it = guests_.find(id); it != guests_.end()) guests_.erase(it);
}

bool HostKeysSampler::is_due(const Guest& guest, const Vm& vm, base::Instant now) const {
    const auto& reason = vm.observed.guest.reason;
    if (guest.under_way || guest.settled_in == reason) return false;
    if (guest.asked == base::Instant{} || guest.asked_in != reason) return true;
    const bool soon = now - guest.first_seen < early && !guest.unanswered;
    return now - guest.asked >= (soon ? base::Duration{early_interval} : base::Duration{late_interval});
}

void HostKeysSampler::ask_those_due() {
    const auto now = clock_.now();
    std::vector<std::pair<base::Instant, std::string>> due;
    for (const auto& [id, vm] : index_.all()) {
        if (!can_be_asked(vm)) continue;
        auto& guest = guests_[id];
        if (guest.start == 0) {
            guest.start = ++starts_;
            guest.first_seen = now;
        }
        if (is_due(guest, vm, now)) due.emplace_back(guest.asked, id);
    }
    std::ranges::sort(due);
    for (const auto& [asked, id] : due) {
        if (askers_.size() >= at_once) break;
        auto& guest = guests_[id];
        guest.under_way = true;
        guest.asked = now;
        guest.asked_in = index_.find(id)->observed.guest.reason;
        askers_.spawn("guest's host keys", ask(id, guest.start));
    }
}

asio::awaitable<void> HostKeysSampler::ask(std::string id, std::uint64_t start) {
    const auto run = co_await hypervisor_.run_in_guest(
        id, {.argv = host_keys_question(), .max_output = max_output, .limit = question_limit});
    const auto it = guests_.find(id);
    if (it == guests_.end() || it->second.start != start) co_return;
    auto& guest = it->second;
    guest.under_way = false;
    guest.asked = clock_.now();
    guest.unanswered = !run || run->how != virt::GuestRun::How::exited;
    const auto* vm = index_.find(id);
    if (guest.unanswered || vm == nullptr || !is_running(*vm)) {
        if (!run) log_.debug("the guest can't be asked for its host keys", {{"vm", id}, {"error", run.error().detail}});
        co_return;
    }
    auto keys = host_keys_in(run->output);
    if (!keys.empty()) guest.settled_in = guest.asked_in;
    if (keys == vm->observed.ssh_host_keys) co_return;
    auto seen = vm->observed;
    seen.ssh_host_keys = std::move(keys);
    index_.observe(id, std::move(seen));
}

}  // namespace ghost::agent
