// How operations run: in their turn, to an end that is on disk before it is told.
#include "agent/operations/live_operation.hpp"
#include "base/fail_point.hpp"
#include "base/shielded.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <exception>
#include <string_view>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::seconds commit_retry_first{1};
constexpr std::chrono::seconds commit_retry_last{30};

}  // namespace

void OperationService::start(const std::shared_ptr<Operation>& operation, Work work) {
    auto live = std::make_shared<Live>(*this, operation);
    live->before_crash = operation->steps;
    live_.emplace(operation->id, live);
    admit();
    changed(*operation);
    tasks_.spawn(operation->kind + " " + operation->id, run(live, std::move(work)));
}

// In the order of their ids, which is that of their coming. Those that stall or wait for a guest take nobody's place:
// a hypervisor that hangs with some holds up no others.
void OperationService::admit() {
    std::size_t running = 0;
    std::map<std::string_view, std::size_t> of_kind;
    const auto limit_of = [this](std::string_view kind) {
        const auto it = limits_.of_kind.find(kind);
        return it == limits_.of_kind.end() ? limits_.running : it->second;
    };
    for (const auto& [id, live] : live_) {
        if (!live->admitted || live->lets_pass || live->operation_->stalled || !live->operation_->exclusive) continue;
        ++running;
        ++of_kind[live->operation_->kind];
    }
    for (const auto& [id, live] : live_) {
        auto& op = *live->operation_;
        if (live->admitted) continue;
        const bool free = running < limits_.running && of_kind[op.kind] < limit_of(op.kind);
        if (!free && op.exclusive && !op.cancel_requested) continue;
        if (op.exclusive) ++running, ++of_kind[op.kind];
        live->admitted = true;
        op.state = OperationState::running;
        if (!op.started_at) op.started_at = clock_.wall();
        changed(op);
        live->turn.notify();
    }
}

asio::awaitable<void> OperationService::await_turn(Live& live) {
    while (!live.admitted && !stopping_) co_await live.turn.wait();
}

asio::awaitable<void> OperationService::run(std::shared_ptr<Live> live, Work work) {
    co_await asio::this_coro::throw_if_cancelled(false);
    auto& op = *live->operation_;
    Outcome outcome;
    co_await await_turn(*live);
    try {
        if (live->admitted)
            outcome = co_await work(*live);
        else
            outcome.result = base::fail(interrupted());
    } catch (const std::exception& e) {
        log_.error("operation ended by an exception", {{"operation", op.id}, {"error", e.what()}});
        outcome.result = base::fail(base::Errc::internal, "an internal fault ended the operation");
    }
    // Interrupted by our own end: the row still says running, and the next start resumes or undoes it.
    const bool interrupted = stopping_ && !outcome.result &&
                             (outcome.result.error().code == base::Errc::interrupted ||
                              outcome.result.error().code == base::Errc::cancelled);
    if (!interrupted) {
        live->pass_last_step();
        live->ending = true;
        auto ended = op;
        ended.steps.clear();
        ended.undoing.reset();
        ended.stalled = false;
        ended.cancellable = false;
        ended.finished_at = clock_.wall();
        if (outcome.result) {
            ended.state = OperationState::succeeded;
            ended.error.reset();
            ended.answer = std::move(outcome.answer);
            keep_texts(ended, outcome.changes);
        } else {
            ended.state = live->cancel_requested() && outcome.result.error().code == base::Errc::cancelled
                              ? OperationState::cancelled
                              : OperationState::failed;
            ended.error = outcome.result.error();
            ended.result_href.clear();
        }
        outcome.changes.emplace_back(to_row(ended));
        if (co_await commit_end(ended, std::move(outcome.changes))) {
            base::fail_point(op.kind + ".end.after");
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
    admit();
    changed(op);
    live->ended.notify();
    if (all_.size() > max_history + max_unfinished) forget_old(0);
}

// Makes room for the texts of one that ends, in memory at once and in the database with its end.
void OperationService::keep_texts(const Operation& ended, storage::Changes& changes) {
    const auto size = ended.answer ? ended.answer->size() : 0;
    if (size == 0) return;
    texts_size_ += size;
    for (auto it = texts_.begin(); texts_size_ > max_texts && it != texts_.end();) {
        const auto found = all_.find(it->first);
        // The end of one may not be written yet.
        if (found != all_.end() && !found->second->answer) {
            ++it;
            continue;
        }
        texts_size_ -= it->second;
        it = texts_.erase(it);
        if (found == all_.end()) continue;
        found->second->answer->expire();
        changes.emplace_back(to_row(*found->second));
    }
    texts_.emplace_back(ended.id, size);
}

// An end that isn't on disk hasn't happened: keep trying while the agent lives. False: the agent stops first.
asio::awaitable<bool> OperationService::commit_end(const Operation& ended, storage::Changes changes) {
    base::Duration pause = commit_retry_first;
    for (;;) {
        if (before_end) before_end(ended, changes);
        const auto done = co_await base::shielded(store_.commit(changes));
        if (done) co_return true;
        log_.error("an operation's end can't be journalled; trying again",
                   {{"operation", ended.id}, {"error", done.error().detail}});
        if (stopping_) co_return false;
        co_await clock_.sleep_for(pause);
        pause = std::min<base::Duration>(pause * 2, commit_retry_last);
    }
}

}  // namespace ghost::agent
