#include "agent/vm/host_keys_sampler.hpp"

#include "agent/guest/ssh_host_keys.hpp"

#include <utility>

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

HostKeysSampler::HostKeysSampler(const asio::any_io_executor& executor, virt::Hypervisor& hypervisor, VmIndex& index,
                                 base::Clock& clock, base::Log& log)
    : hypervisor_(hypervisor),
      index_(index),
      log_(log),
      rounds_(executor, index, clock, log,
              {.task = "guest's host keys",
               .interval = interval,
               .at_once = at_once,
               .may_be_asked = can_be_asked,
               .is_due = is_due,
               .ask = [this](std::string id, std::uint64_t start) { return ask(std::move(id), start); }}) {}

bool HostKeysSampler::is_due(const Vm& vm, const Rounds::Guest& guest, base::Instant now) {
    const auto& reason = vm.observed.guest.reason;
    if (guest.settled_in == reason) return false;
    if (guest.asked == base::Instant{} || guest.asked_in != reason) return true;
    const bool soon = now - guest.first_seen < early && !guest.unanswered;
    return now - guest.asked >= (soon ? base::Duration{early_interval} : base::Duration{late_interval});
}

asio::awaitable<void> HostKeysSampler::ask(std::string id, std::uint64_t start) {
    if (auto* guest = rounds_.asked_in(id, start)) guest->asked_in = index_.find(id)->observed.guest.reason;
    const auto run = co_await hypervisor_.run_in_guest(
        id, {.argv = host_keys_question(), .max_output = max_output, .limit = question_limit});
    auto* guest = rounds_.answered(id, start);
    if (guest == nullptr) co_return;
    guest->unanswered = !run || run->how != virt::GuestRun::How::exited;
    const auto* vm = index_.find(id);
    if (guest->unanswered || vm == nullptr || !is_running(*vm)) {
        if (!run) log_.debug("the guest can't be asked for its host keys", {{"vm", id}, {"error", run.error().detail}});
        co_return;
    }
    auto keys = host_keys_in(run->output);
    if (!keys.empty()) guest->settled_in = guest->asked_in;
    if (keys == vm->observed.ssh_host_keys) co_return;
    auto seen = vm->observed;
    seen.ssh_host_keys = std::move(keys);
    index_.observe(id, std::move(seen));
}

}  // namespace ghost::agent
