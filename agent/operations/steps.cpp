#include "agent/operations/steps.hpp"

#include <boost/json/array.hpp>
#include <fmt/format.h>

#include <ranges>
#include <span>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr int undo_attempts = 3;
constexpr std::chrono::seconds undo_pause{2};
// A hypervisor that went away is waited for: it comes back, and what it was asked for may have been done meanwhile.
constexpr std::chrono::minutes outage_patience{10};

asio::awaitable<base::Result<void>> undo_one(base::Clock& clock, OperationControl& control, const Step& step) {
    base::Result<void> result;
    const auto patience = clock.now() + outage_patience;
    for (int attempt = 1;;) {
        result = co_await step.undo();
        if (result || control.stopping()) break;
        const bool away = result.error().code == base::Errc::hypervisor_unavailable && clock.now() < patience;
        if (away)
            control.stalled()();
        else if (attempt++ == undo_attempts)
            break;
        co_await clock.sleep_for(undo_pause);
    }
    co_return result;
}

// Names of the steps that weren't undone: one that couldn't be, and those before it.
asio::awaitable<boost::json::array> undo_all(OperationControl& control, base::Clock& clock, base::Log& log,
                                             std::span<const Step> steps) {
    boost::json::array left;
    for (const auto& step : steps | std::views::reverse) {
        if (control.stopping()) break;
        if (!step.undo) continue;
        if (!left.empty()) {
            left.emplace_back(step.name);
            continue;
        }
        const auto undone = co_await undo_one(clock, control, step);
        if (undone) continue;
        if (control.stopping()) break;  // the next start goes on with it
        log.error("a step can't be undone",
                  {{"operation", control.operation().id}, {"step", step.name}, {"error", undone.error().detail}});
        left.emplace_back(step.name + ": " + undone.error().detail);
    }
    co_return left;
}

// True: nothing is left to do of it.
asio::awaitable<bool> passed_over(OperationControl& control, base::Clock& clock, const Step& step) {
    const auto* const before = control.step_before(step.name);
    if (before == nullptr) co_return false;
    const auto& look = before->done ? step.is_there : step.is_done;
    if (look ? co_await look() : before->done) co_return true;
    if (step.undo) (void)co_await undo_one(clock, control, step);
    co_return false;
}

asio::awaitable<base::Result<void>> run_one(OperationControl& control, base::Log& log, std::span<const Step> steps,
                                            std::size_t at) {
    const auto& step = steps[at];
    try {
        auto begun = co_await control.begin_step(step.name);
        if (!begun) co_return begun;
        control.progress(at, steps.size(), "steps");
        co_return co_await control.cancellable(step.run());
    } catch (const std::exception& e) {
        log.error("a step ended by an exception",
                  {{"operation", control.operation().id}, {"step", step.name}, {"error", e.what()}});
    }
    co_return base::fail(base::Errc::internal, "an internal fault in step " + step.name);
}

}  // namespace

asio::awaitable<base::Result<void>> run_steps(OperationControl& control, base::Clock& clock, base::Log& log,
                                              std::vector<Step> steps) {
    if (const auto why = control.operation().undoing)
        co_return co_await undo_steps(control, clock, log, std::move(steps), *why);
    for (std::size_t i = 0; i < steps.size(); ++i) {
        const bool passed = !control.cancel_requested() && co_await passed_over(control, clock, steps[i]);
        if (passed) continue;
        if (control.stopping()) co_return base::fail(interrupted());
        const auto done = co_await run_one(control, log, steps, i);
        if (done) continue;
        if (control.stopping()) co_return base::fail(interrupted());
        auto failure = done.error();
        failure.facts["step"] = steps[i].name;
        auto begun = steps.size();
        while (begun > i + 1 && control.step_before(steps[begun - 1].name) == nullptr) --begun;
        steps.resize(begun);
        co_return co_await undo_steps(control, clock, log, std::move(steps), std::move(failure));
    }
    control.progress(steps.size(), steps.size(), "steps");
    co_return base::Result<void>{};
}

asio::awaitable<base::Result<void>> undo_steps(OperationControl& control, base::Clock& clock, base::Log& log,
                                               std::vector<Step> steps, base::Error why) {
    co_await control.begin_undo(why);
    auto left = co_await undo_all(control, clock, log, steps);
    if (control.stopping()) co_return base::fail(interrupted());
    if (!left.empty()) why.facts["left_behind"] = std::move(left);
    co_return base::fail(std::move(why));
}

}  // namespace ghost::agent
