#include "agent/operations/operation_service.hpp"

#include "base/ids.hpp"
#include "base/shielded.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/array.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

namespace {

constexpr std::chrono::seconds commit_retry_first{1};
constexpr std::chrono::seconds commit_retry_last{30};

}  // namespace

base::Error interrupted() { return {base::Errc::interrupted, "the agent is stopping"}; }

struct OperationService::Live final : OperationControl, std::enable_shared_from_this<Live> {
    Live(OperationService& service, std::shared_ptr<Operation> op)
        : owner(service), operation_(std::move(op)), ended(service.executor_) {}

    void phase(std::string name) override {
        operation_->progress = {};
        operation_->progress.phase = std::move(name);
        operation_->stalled = false;
        owner.changed(*operation_);
    }

    void progress(std::uint64_t done, std::uint64_t total, std::string_view unit) override {
        auto& p = operation_->progress;
        const auto now = owner.clock_.now();
        if (p.unit != unit || done < p.done) rate_from = {now, done};
        p.done = done;
        p.total = total;
        p.unit = unit;
        const auto seconds = std::chrono::duration<double>(now - rate_from.first).count();
        p.rate = seconds > 0.2 ? static_cast<double>(done - rate_from.second) / seconds : 0;
        owner.changed(*operation_);
    }

    std::function<void()> stalled() override {
        return [weak = weak_from_this()] {
            const auto self = weak.lock();
            if (!self || is_terminal(self->operation_->state)) return;
            self->operation_->stalled = true;
            self->owner.changed(*self->operation_);
        };
    }

    bool cancel_requested() const override { return cancelled; }
    bool stopping() const override { return owner.stopping_; }
    const Operation& operation() const override { return *operation_; }

    void no_more_cancel() override {
        operation_->cancellable = false;
        owner.changed(*operation_);
    }

    asio::awaitable<base::Result<void>> cancellable(asio::awaitable<base::Result<void>> step) override {
        if (cancelled || owner.stopping_) co_return base::fail(base::Errc::cancelled, "cancelled on request");
        const auto executor = co_await asio::this_coro::executor;
        auto [error, result] = co_await asio::co_spawn(
            executor, std::move(step),
            asio::bind_cancellation_slot(stop_step.slot(), asio::as_tuple(asio::use_awaitable)));
        // A step that was torn down ends with an exception of Asio's or whatever its calls made of it; that is no fault
        // of the step's.
        const bool failed = error || !result;
        if (failed && cancelled) co_return base::fail(base::Errc::cancelled, "cancelled on request");
        if (failed && owner.stopping_) co_return base::fail(interrupted());
        if (error) std::rethrow_exception(error);
        co_return std::move(result);
    }

    OperationService& owner;
    std::shared_ptr<Operation> operation_;
    bool cancelled = false;
    asio::cancellation_signal stop_step;
    base::Notifier ended;
    std::pair<base::Instant, std::uint64_t> rate_from{};
};

OperationService::OperationService(asio::any_io_executor executor, base::Clock& clock, base::Random& random,
                                   storage::StateStore& store, base::Log& log)
    : executor_(std::move(executor)),
      clock_(clock),
      random_(random),
      store_(store),
      log_(log),
      tasks_(executor_, log) {}

storage::OperationRow to_row(const Operation& op) {
    return {op.id, std::string{name_of(op.state)}, base::to_unix_ms(op.created_at),
            op.finished_at ? std::optional{base::to_unix_ms(*op.finished_at)} : std::nullopt, to_document(op)};
}

std::vector<Operation> OperationService::restore(const std::vector<storage::OperationRow>& rows) {
    std::vector<Operation> unfinished;
    for (const auto& row : rows) {
        auto op = operation_from_document(row.document);
        if (!op) {
            log_.error("a journalled operation can't be read and is left out",
                       {{"operation", row.id}, {"error", op.error().detail}});
            continue;
        }
        auto kept = std::make_shared<Operation>(std::move(*op));
        all_.emplace(kept->id, kept);
        if (is_terminal(kept->state)) continue;
        if (kept->exclusive) locked_.emplace(kept->target.id, kept->id);
        unfinished.push_back(*kept);
    }
    return unfinished;
}

asio::awaitable<base::Result<OperationService::Ptr>> OperationService::begin(OperationRequest request, Work work) {
    const auto target = request.target.id;
    if (closed_) co_return base::fail(base::Errc::draining, "the agent is stopping");
    if (live_.size() >= max_unfinished)
        co_return base::fail(base::Errc::overloaded, fmt::format("{} operations are under way already", live_.size()));
    auto op = std::make_shared<Operation>();
    op->id = base::make_uuid(clock_, random_);
    if (request.exclusive) {
        if (const auto it = locked_.find(target); it != locked_.end()) {
            base::Error busy{base::Errc::operation_in_progress, "another operation on it is under way"};
            busy.facts["operation"] = "/v1/operations/" + it->second;
            co_return base::fail(std::move(busy));
        }
        locked_.emplace(target, op->id);
    }

    op->kind = std::move(request.kind);
    op->target = std::move(request.target);
    op->state = OperationState::running;
    op->cancellable = request.cancellable;
    op->exclusive = request.exclusive;
    op->result_href = std::move(request.result_href);
    op->request_id = request.context.request_id;
    op->traceparent = request.context.traceparent;
    op->requested_by = request.context.who.text();
    op->created_at = clock_.wall();
    op->started_at = op->created_at;
    op->plan = std::move(request.plan);

    auto changes = std::move(request.accept_with);
    changes.emplace_back(to_row(*op));
    // A client that goes away now must not leave a journalled operation that nobody runs.
    const auto journalled = co_await base::shielded(store_.commit(std::move(changes)));
    if (!journalled) {
        if (request.exclusive) locked_.erase(target);
        co_return base::fail(journalled.error());
    }
    all_.emplace(op->id, op);
    log_.info("operation accepted", {{"operation", op->id},
                                     {"kind", op->kind},
                                     {"target", op->target.name},
                                     {"request_id", op->request_id},
                                     {"traceparent", op->traceparent},
                                     {"by", op->requested_by}});
    start(op, std::move(work));
    co_return op;
}

void OperationService::resume(const std::string& id, Work work) {
    const auto it = all_.find(id);
    assert(it != all_.end() && "restore() returned it");
    it->second->cancellable = false;
    start(it->second, std::move(work));
}

void OperationService::start(const std::shared_ptr<Operation>& operation, Work work) {
    auto live = std::make_shared<Live>(*this, operation);
    live_.emplace(operation->id, live);
    changed(*operation);
    tasks_.spawn(operation->kind + " " + operation->id, run(live, std::move(work)));
}

asio::awaitable<void> OperationService::run(std::shared_ptr<Live> live, Work work) {
    co_await asio::this_coro::throw_if_cancelled(false);
    auto& op = *live->operation_;
    Outcome outcome;
    try {
        outcome = co_await work(*live);
    } catch (const std::exception& e) {
        log_.error("operation ended by an exception", {{"operation", op.id}, {"error", e.what()}});
        outcome.result = base::fail(base::Errc::internal, "an internal fault ended the operation");
    }
    // Interrupted by our own end: the row still says running, and the next start resumes or undoes it.
    const bool interrupted = stopping_ && !outcome.result &&
                             (outcome.result.error().code == base::Errc::interrupted ||
                              outcome.result.error().code == base::Errc::cancelled);
    if (!interrupted) {
        auto ended = op;
        ended.stalled = false;
        ended.cancellable = false;
        ended.finished_at = clock_.wall();
        if (outcome.result) {
            ended.state = OperationState::succeeded;
        } else {
            ended.state = live->cancelled && outcome.result.error().code == base::Errc::cancelled
                              ? OperationState::cancelled
                              : OperationState::failed;
            ended.error = outcome.result.error();
            ended.result_href.clear();
        }
        outcome.changes.emplace_back(to_row(ended));
        if (co_await commit_end(*live, std::move(outcome.changes))) {
            op = std::move(ended);
            if (outcome.applied) outcome.applied();
            base::Fields fields{
                {"operation", op.id}, {"kind", op.kind}, {"target", op.target.name}, {"state", name_of(op.state)}};
            fields.emplace_back("traceparent", op.traceparent);
            if (op.error) fields.emplace_back("error", op.error->detail);
            log_.info("operation ended", std::move(fields));
        }
    }
    if (op.exclusive) locked_.erase(op.target.id);
    live_.erase(op.id);
    changed(op);
    live->ended.notify();
    if (all_.size() > max_history + max_unfinished) forget_old(0);
}

// An end that isn't on disk hasn't happened: keep trying while the agent lives. False: the agent stops first.
asio::awaitable<bool> OperationService::commit_end(Live& live, storage::Changes changes) {
    base::Duration pause = commit_retry_first;
    for (;;) {
        const auto done = co_await base::shielded(store_.commit(changes));
        if (done) co_return true;
        log_.error("an operation's end can't be journalled; trying again",
                   {{"operation", live.operation_->id}, {"error", done.error().detail}});
        if (stopping_) co_return false;
        co_await clock_.sleep_for(pause);
        pause = std::min<base::Duration>(pause * 2, commit_retry_last);
    }
}

void OperationService::changed(const Operation& operation) {
    if (on_change) on_change(operation);
}

OperationService::Ptr OperationService::find(const std::string& id) const {
    const auto it = all_.find(id);
    return it == all_.end() ? nullptr : it->second;
}

OperationService::Ptr OperationService::running_on(const std::string& target_id) const {
    const auto it = locked_.find(target_id);
    return it == locked_.end() ? nullptr : find(it->second);
}

bool OperationService::ended_without(std::string_view target_id) const {
    return std::ranges::any_of(all_, [target_id](const auto& entry) {
        const auto& op = *entry.second;
        if (op.target.id != target_id || !is_terminal(op.state)) return false;
        const bool succeeded = op.state == OperationState::succeeded;
        return op.kind.ends_with(".delete") ? succeeded : op.kind.ends_with(".create") && !succeeded;
    });
}

std::vector<OperationService::Ptr> OperationService::list() const {
    std::vector<Ptr> out;
    out.reserve(all_.size());
    for (auto it = all_.rbegin(); it != all_.rend(); ++it) out.push_back(it->second);
    return out;
}

asio::awaitable<OperationService::Ptr> OperationService::wait(std::string id, base::Duration limit) {
    const auto deadline = clock_.now() + limit;
    auto op = find(id);
    while (op && !closed_ && !is_terminal(op->state) && clock_.now() < deadline) {
        const auto it = live_.find(id);
        if (it == live_.end()) break;
        const auto live = it->second;  // outlives its entry while we wait
        co_await live->ended.wait_until(clock_, deadline);
    }
    co_return op;
}

base::Result<OperationService::Ptr> OperationService::cancel(const std::string& id) {
    auto op = find(id);
    if (!op) return base::fail(base::Errc::not_found, "no operation " + id);
    const auto it = live_.find(id);
    if (is_terminal(op->state) || it == live_.end() || !op->cancellable) {
        base::Error refused{base::Errc::state_conflict, is_terminal(op->state)
                                                            ? "the operation has ended already"
                                                            : "the operation can't be cancelled any more"};
        refused.facts["state"] = name_of(op->state);
        refused.facts["allowed"] = boost::json::array{};
        return base::fail(std::move(refused));
    }
    it->second->cancelled = true;
    it->second->stop_step.emit(asio::cancellation_type::terminal);
    return op;
}

void OperationService::close_intake() {
    closed_ = true;
    for (auto& [id, control] : live_) control->ended.notify();
}

asio::awaitable<void> OperationService::stop() {
    close_intake();
    stopping_ = true;
    // Ending a step may end its operation and erase it from the map: emit on a copy.
    auto live = live_;
    for (auto& [id, control] : live) control->stop_step.emit(asio::cancellation_type::terminal);
    tasks_.cancel(asio::cancellation_type::terminal);
    co_await tasks_.drain();
}

asio::awaitable<void> OperationService::prune_forever() {
    do {
        const auto before = base::to_unix_ms(clock_.wall() - history);
        forget_old(before);
        storage::Changes prune;
        prune.emplace_back(storage::PruneOperations{before, max_history});
        if (const auto done = co_await store_.commit(std::move(prune)); !done)
            log_.warn("old operations can't be deleted", {{"error", done.error().detail}});
    } while (co_await clock_.sleep_for(std::chrono::hours{1}));
}

void OperationService::forget_old(std::int64_t finished_before_ms) {
    std::size_t excess = all_.size() > max_history ? all_.size() - max_history : 0;
    std::erase_if(all_, [&](const auto& entry) {
        const auto& op = *entry.second;
        if (!op.finished_at) return false;
        const bool old = base::to_unix_ms(*op.finished_at) < finished_before_ms;
        if (!old && excess == 0) return false;
        if (!old) --excess;
        if (on_forgotten) on_forgotten(op.id);
        return true;
    });
}

}  // namespace ghost::agent
