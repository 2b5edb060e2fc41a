#include "agent/vm/readiness_sampler.hpp"

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::minutes early{10};
constexpr unsigned most_doublings = 5;

}  // namespace

ReadinessSampler::ReadinessSampler(const asio::any_io_executor& executor, virt::Hypervisor& hypervisor, VmIndex& index,
                                   base::Clock& clock, base::Log& log)
    : hypervisor_(hypervisor),
      index_(index),
      log_(log),
      rounds_(executor, index, clock, log,
              {.task = "guest's readiness",
               .interval = awaited_interval,
               .at_once = at_once,
               // Others' guests are theirs: nothing is run in them.
               .may_be_asked = [](const Vm& vm) { return vm.managed && vm.observed.power == virt::Power::running; },
               .is_due = [this](const Vm& vm, const Rounds::Guest& guest,
                                base::Instant now) { return is_due(vm.id, guest, now); },
               .ask = [this](std::string id, std::uint64_t start) { return ask(std::move(id), start); }}) {}

bool ReadinessSampler::is_due(const std::string& id, const Rounds::Guest& guest, base::Instant now) const {
    if (guest.settled) return false;
    if (guest.asked == base::Instant{}) return true;
    base::Duration interval = now - guest.first_seen < early ? early_interval : late_interval;
    // What hangs in the guest stays there: another one with each question.
    const bool awaited = awaited_.contains(id);
    if (guest.unanswered > 0)
        interval = late_interval * (1U << std::min(guest.unanswered, awaited ? 1U : most_doublings));
    else if (awaited)
        interval = awaited_interval;
    return now - guest.asked >= interval;
}

asio::awaitable<base::Result<GuestReadiness>> ReadinessSampler::question(std::string id, CloudInitDialect& dialect) {
    for (;;) {
        const auto run = co_await hypervisor_.run_in_guest(id, {.argv = cloud_init_question(dialect)});
        if (!run) co_return base::fail(run.error());
        if (auto answer = guest_readiness(*run, dialect)) co_return std::move(*answer);
        dialect = CloudInitDialect::lines;
    }
}

asio::awaitable<void> ReadinessSampler::ask(std::string id, std::uint64_t start) {
    auto dialect = CloudInitDialect::json;
    if (const auto* guest = rounds_.asked_in(id, start)) dialect = guest->dialect;
    auto answer = co_await question(id, dialect);
    auto* guest = rounds_.answered(id, start);
    if (guest == nullptr) co_return;
    guest->dialect = dialect;
    if (!answer) {
        if (answer.error().code == base::Errc::deadline_exceeded) ++guest->unanswered;
        log_.debug("the guest can't be asked for cloud-init's status", {{"vm", id}, {"error", answer.error().detail}});
        co_return;
    }
    guest->unanswered = 0;
    if (const auto* vm = index_.find(id); vm != nullptr && is_running(*vm)) take(*guest, *vm, std::move(*answer));
}

void ReadinessSampler::take(Rounds::Guest& guest, const Vm& vm, GuestReadiness answer) {
    // Old versions tell of the first error while more modules are to run: the same twice is the last word.
    guest.settled =
        answer.ready == Verdict::yes || (answer.reason == "cloud_init_error" && answer == vm.observed.guest);
    if (answer == vm.observed.guest) return;
    if (answer.ready == Verdict::yes)
        log_.info("the guest is ready", {{"vm", vm.id}, {"name", vm.name}, {"reason", answer.reason}});
    else if (answer.reason == "cloud_init_error")
        log_.warn("cloud-init failed in the guest", {{"vm", vm.id}, {"name", vm.name}, {"error", answer.message}});
    auto seen = vm.observed;
    seen.guest = std::move(answer);
    index_.observe(vm.id, std::move(seen));
}

}  // namespace ghost::agent
