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
        log.error("a step can't be undone",
                  {{"operation", control.operation().id}, {"step", step.name}, {"error", undone.error().detail}});
        left.emplace_back(step.name + ": " + undone.error().detail);
    }
    co_return left;
}

}  // namespace

asio::awaitable<base::Result<void>> run_steps(OperationControl& control, base::Clock& clock, base::Log& log,
                                              std::vector<Step> steps) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
        control.phase(steps[i].name);
        control.progress(i, steps.size(), "steps");
        base::Result<void> done;
        try {
            done = co_await control.cancellable(steps[i].run());
        } catch (const std::exception& e) {
            log.error("a step ended by an exception",
                      {{"operation", control.operation().id}, {"step", steps[i].name}, {"error", e.what()}});
            done = base::fail(base::Errc::internal, "an internal fault in step " + steps[i].name);
        }
        if (done) continue;
        if (control.stopping()) co_return base::fail(interrupted());
        auto failure = done.error();
        control.phase("undo");
        auto left = co_await undo_all(control, clock, log, std::span{steps}.first(i + 1));
        if (control.stopping()) co_return base::fail(interrupted());
        failure.facts["step"] = steps[i].name;
        if (!left.empty()) failure.facts["left_behind"] = std::move(left);
        co_return base::fail(std::move(failure));
    }
    control.progress(steps.size(), steps.size(), "steps");
    co_return base::Result<void>{};
}

asio::awaitable<base::Result<void>> undo_steps(OperationControl& control, base::Clock& clock, base::Log& log,
                                               const std::vector<Step>& steps) {
    control.phase("undo");
    auto left = co_await undo_all(control, clock, log, steps);
    if (control.stopping()) co_return base::fail(interrupted());
    if (left.empty()) co_return base::Result<void>{};
    base::Error error{base::Errc::io_error, "not everything could be undone"};
    error.facts["left_behind"] = std::move(left);
    co_return base::fail(std::move(error));
}

}  // namespace ghost::agent
