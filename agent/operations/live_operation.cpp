#include "agent/operations/live_operation.hpp"

#include "base/fail_point.hpp"
#include "base/shielded.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <exception>

namespace ghost::agent {
namespace asio = boost::asio;

namespace {

constexpr std::chrono::seconds abort_pause{1};

using Waiting = asio::awaitable<base::Result<void>>;

}  // namespace

asio::awaitable<base::Result<void>> OperationService::Live::journal() {
    storage::Changes changes;
    changes.emplace_back(to_row(*operation_));
    co_return co_await base::shielded(owner.store_.commit(std::move(changes)));
}

void OperationService::Live::pass_last_step() const {
    if (!operation_->steps.empty())
        base::fail_point(fmt::format("{}.{}.after", operation_->kind, operation_->steps.back().name));
}

asio::awaitable<base::Result<void>> OperationService::Live::begin_step(std::string name) {
    pass_last_step();
    if (!operation_->steps.empty()) operation_->steps.back().done = true;
    // A step that comes again, as a wait does, isn't begun anew.
    std::erase_if(operation_->steps, [&name](const StepRecord& step) { return step.name == name; });
    operation_->steps.push_back({name, false});
    phase(name);
    auto written = co_await journal();
    if (!written) {
        owner.log_.warn("a step's begin can't be journalled",
                        {{"operation", operation_->id}, {"step", name}, {"error", written.error().detail}});
        operation_->steps.pop_back();
        co_return written;
    }
    base::fail_point(fmt::format("{}.{}.before", operation_->kind, name));
    co_return written;
}

const StepRecord* OperationService::Live::step_before(std::string_view name) const {
    const auto it = std::ranges::find(before_crash, name, &StepRecord::name);
    return it == before_crash.end() ? nullptr : &*it;
}

asio::awaitable<void> OperationService::Live::begin_undo(base::Error why) {
    pass_last_step();
    if (!operation_->undoing) operation_->undoing = std::move(why);
    phase("undo");
    // Without it the next start would go on instead of back, and do again what was taken back.
    if (const auto written = co_await journal(); !written)
        owner.log_.warn("an undo's begin can't be journalled",
                        {{"operation", operation_->id}, {"error", written.error().detail}});
    base::fail_point(operation_->kind + ".undo.before");
}

void OperationService::Live::phase(std::string name) {
    operation_->progress = {};
    operation_->progress.phase = std::move(name);
    operation_->stalled = false;
    lets_pass = false;
    owner.changed(*operation_);
}

void OperationService::Live::progress(std::uint64_t done, std::uint64_t total, std::string_view unit) {
    auto& p = operation_->progress;
    const auto now = owner.clock_.now();
    if (p.unit != unit || done < p.done) rate_from_ = {now, done};
    p.done = done;
    p.total = total;
    p.unit = unit;
    const auto seconds = std::chrono::duration<double>(now - rate_from_.first).count();
    p.rate = seconds > 0.2 ? static_cast<double>(done - rate_from_.second) / seconds : 0;
    owner.changed(*operation_);
}

std::function<void()> OperationService::Live::stalled() {
    return [weak = weak_from_this()] {
        const auto self = weak.lock();
        if (!self || is_terminal(self->operation_->state)) return;
        self->operation_->stalled = true;
        self->owner.changed(*self->operation_);
        self->owner.admit();
    };
}

void OperationService::Live::let_others_pass() {
    lets_pass = true;
    owner.admit();
}

asio::awaitable<bool> OperationService::Live::wait_to_retry(base::Error why, base::Duration pause) {
    operation_->error = std::move(why);
    operation_->cancellable = true;
    phase("retry");
    let_others_pass();
    const auto waited = co_await cancellable([](base::Clock& clock, base::Duration limit) -> Waiting {
        (void)co_await clock.sleep_for(limit);
        co_return base::Result<void>{};
    }(owner.clock_, pause));
    operation_->error.reset();
    no_more_cancel();
    co_return waited && !cancel_requested() && !stopping();
}

void OperationService::Live::no_more_cancel() {
    operation_->cancellable = false;
    owner.changed(*operation_);
}

// Written down, so that a crash doesn't make the next start go on with what nobody wants any more.
void OperationService::Live::cancel() {
    operation_->cancel_requested = true;
    owner.tasks_.spawn("cancel " + operation_->id, [](std::shared_ptr<Live> self) -> asio::awaitable<void> {
        if (!self->ending) (void)co_await self->journal();
    }(shared_from_this()));
    owner.admit();
    stop_step.emit(asio::cancellation_type::terminal);
}

asio::awaitable<base::Result<void>> OperationService::Live::cancellable(asio::awaitable<base::Result<void>> step) {
    const auto cancelled = [this] { return operation_->cancel_requested; };
    if (cancelled() || owner.stopping_) co_return base::fail(base::Errc::cancelled, "cancelled on request");
    const auto executor = co_await asio::this_coro::executor;
    auto [error, result] = co_await asio::co_spawn(
        executor, std::move(step), asio::bind_cancellation_slot(stop_step.slot(), asio::as_tuple(asio::use_awaitable)));
    // A step that was torn down ends with an exception of Asio's or whatever its calls made of it; that is no fault of
    // the step's.
    const bool failed = error || !result;
    if (failed && cancelled()) co_return base::fail(base::Errc::cancelled, "cancelled on request");
    if (failed && owner.stopping_) co_return base::fail(interrupted());
    if (error) std::rethrow_exception(error);
    co_return std::move(result);
}

asio::awaitable<base::Result<void>> OperationService::Live::abortable(asio::awaitable<base::Result<void>> step,
                                                                      Abort abort) {
    if (cancel_requested()) {
        // What an agent that died had begun may go on.
        if (!before_crash.empty()) co_await abort();
        co_return base::fail(base::Errc::cancelled, "cancelled on request");
    }
    const auto step_ended = std::make_shared<bool>(false);
    stop_step.slot().assign([this, abort = std::move(abort), step_ended](asio::cancellation_type) {
        if (cancel_requested()) owner.tasks_.spawn("abort " + operation_->id, keep_aborting(abort, step_ended));
    });
    auto result = co_await std::move(step);
    *step_ended = true;
    stop_step.slot().clear();
    // Who went away didn't say how it ended.
    const bool unknown = !result && result.error().code == base::Errc::hypervisor_unavailable;
    if (!result && !unknown && cancel_requested()) co_return base::fail(base::Errc::cancelled, "cancelled on request");
    if (!result && stopping()) co_return base::fail(interrupted());
    co_return result;
}

// What it is to end may not have begun yet.
asio::awaitable<void> OperationService::Live::keep_aborting(Abort abort, std::shared_ptr<bool> step_ended) {
    const auto self = shared_from_this();
    while (!*step_ended && !stopping()) {
        co_await abort();
        if (!co_await owner.clock_.sleep_for(abort_pause)) co_return;
    }
}

}  // namespace ghost::agent
