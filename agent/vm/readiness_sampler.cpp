#include "agent/vm/readiness_sampler.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::minutes early{10};
constexpr unsigned most_doublings = 5;

}  // namespace

asio::awaitable<void> ReadinessSampler::run() {
    // The askers belong to this coroutine: they end with it.
    co_await asio::this_coro::throw_if_cancelled(false);
    do {
        if (ready()) ask_those_due();
    } while (co_await clock_.sleep_for(awaited_interval));
    askers_.cancel();
    co_await askers_.drain();
}

void ReadinessSampler::forget(std::string_view id) {
    if (const auto it = guests_.find(id); it != guests_.end()) guests_.erase(it);
}

bool ReadinessSampler::is_due(const std::string& id, const Guest& guest, base::Instant now) const {
    if (guest.under_way || guest.settled) return false;
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

void ReadinessSampler::ask_those_due() {
    const auto now = clock_.now();
    std::vector<std::pair<base::Instant, std::string>> due;
    for (const auto& [id, vm] : index_.all()) {
        // Others' guests are theirs: nothing is run in them.
        if (!vm.managed || vm.observed.power != virt::Power::running) continue;
        auto& guest = guests_[id];
        if (guest.start == 0) {
            guest.start = ++starts_;
            guest.first_seen = now;
        }
        if (is_due(id, guest, now)) due.emplace_back(guest.asked, id);
    }
    std::ranges::sort(due);
    for (const auto& [asked, id] : due) {
        if (askers_.size() >= at_once) break;
        auto& guest = guests_[id];
        guest.under_way = true;
        guest.asked = now;
        askers_.spawn("guest's readiness", ask(id, guest.start));
    }
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
    if (const auto it = guests_.find(id); it != guests_.end()) dialect = it->second.dialect;
    auto answer = co_await question(id, dialect);
    const auto it = guests_.find(id);
    if (it == guests_.end() || it->second.start != start) co_return;
    auto& guest = it->second;
    guest.under_way = false;
    guest.asked = clock_.now();
    guest.dialect = dialect;
    if (!answer) {
        if (answer.error().code == base::Errc::deadline_exceeded) ++guest.unanswered;
        log_.debug("the guest can't be asked for cloud-init's status", {{"vm", id}, {"error", answer.error().detail}});
        co_return;
    }
    guest.unanswered = 0;
    if (const auto* vm = index_.find(id); vm != nullptr && is_running(*vm)) take(guest, *vm, std::move(*answer));
}

void ReadinessSampler::take(Guest& guest, const Vm& vm, GuestReadiness answer) {
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
