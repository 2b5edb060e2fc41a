#include "agent/operations/operation_service.hpp"

#include "agent/operations/live_operation.hpp"
#include "base/fail_point.hpp"
#include "base/ids.hpp"
#include "base/shielded.hpp"

#include <boost/asio/this_coro.hpp>
#include <boost/json/array.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <ranges>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

base::Error interrupted() { return {base::Errc::interrupted, "the agent is stopping"}; }

OperationService::OperationService(asio::any_io_executor executor, base::Clock& clock, base::Random& random,
                                   storage::StateStore& store, base::Log& log, OperationLimits limits)
    : executor_(std::move(executor)),
      clock_(clock),
      random_(random),
      store_(store),
      log_(log),
      limits_(std::move(limits)),
      tasks_(executor_, log),
      keys_(clock) {}

storage::OperationRow to_row(const Operation& op) {
    return {op.id, std::string{name_of(op.state)}, base::to_unix_ms(op.created_at),
            op.finished_at ? std::optional{base::to_unix_ms(*op.finished_at)} : std::nullopt, to_document(op)};
}

std::vector<Operation> OperationService::restore(const std::vector<storage::OperationRow>& rows,
                                                 const std::vector<storage::KeyRow>& keys) {
    keys_.restore(keys);
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
        if (const auto size = kept->answer ? kept->answer->size() : 0; size > 0) {
            texts_.emplace_back(kept->id, size);
            texts_size_ += size;
        }
        if (is_terminal(kept->state)) continue;
        if (kept->exclusive) locked_.emplace(kept->target.id, kept->id);
        unfinished.push_back(*kept);
    }
    return unfinished;
}

base::Result<void> OperationService::acceptable(const OperationRequest& request) const {
    if (closed_) return base::fail(base::Errc::draining, "the agent is stopping");
    if (live_.size() >= max_unfinished)
        return base::fail(base::Errc::overloaded, fmt::format("{} operations are under way already", live_.size()));
    if (!request.exclusive) return {};
    const auto it = locked_.find(request.target.id);
    if (it == locked_.end()) return {};
    base::Error busy{base::Errc::operation_in_progress, "another operation on it is under way"};
    busy.facts["operation"] = "/v1/operations/" + it->second;
    return base::fail(std::move(busy));
}

namespace {

std::shared_ptr<Operation> make_operation(std::string id, OperationRequest& request, base::Wall now) {
    auto op = std::make_shared<Operation>();
    op->id = std::move(id);
    op->kind = std::move(request.kind);
    op->target = std::move(request.target);
    op->cancellable = request.cancellable;
    op->exclusive = request.exclusive;
    op->result_href = std::move(request.result_href);
    op->request_id = request.context.request_id;
    op->traceparent = request.context.traceparent;
    op->requested_by = request.context.who.text();
    op->created_at = now;
    op->plan = std::move(request.plan);
    return op;
}

}  // namespace

base::Result<OperationService::Ptr> OperationService::preview(OperationRequest request) const {
    if (auto may = acceptable(request); !may) return base::fail(std::move(may).error());
    auto would = Preview{std::move(request.would), std::move(request.needs)};
    auto op = make_operation({}, request, clock_.wall());
    op->preview = std::move(would);
    return op;
}

asio::awaitable<base::Result<OperationService::Ptr>> OperationService::begin(OperationRequest request, Work work) {
    assert(!request.context.dry_run && "a dry run is previewed");
    if (auto may = acceptable(request); !may) co_return base::fail(std::move(may).error());
    const auto op = make_operation(base::make_uuid(clock_, random_), request, clock_.wall());
    if (op->exclusive) locked_.emplace(op->target.id, op->id);

    auto changes = std::move(request.accept_with);
    changes.emplace_back(to_row(*op));
    const auto& key = request.context.idempotency;
    if (!key.key.empty()) changes.emplace_back(keys_.row(key, op->id));
    base::fail_point(op->kind + ".accept.before");
    // A client that goes away now must not leave a journalled operation that nobody runs.
    const auto journalled = co_await base::shielded(store_.commit(std::move(changes)));
    if (!journalled) {
        if (op->exclusive) locked_.erase(op->target.id);
        co_return base::fail(journalled.error());
    }
    base::fail_point(op->kind + ".accept.after");
    if (!key.key.empty()) keys_.put(keys_.row(key, op->id));
    all_.emplace(op->id, op);
    log_.info("operation accepted", {{"operation", op->id},
                                     {"kind", op->kind},
                                     {"target", op->target.name},
                                     {"request_id", op->request_id},
                                     {"traceparent", op->traceparent},
                                     {"by", op->requested_by}});
    // One that comes in the last moment is begun by the next start.
    if (!stopping_) start(op, std::move(work));
    co_return op;
}

base::Result<OperationService::Ptr> OperationService::begun_with(const base::IdempotencyKey& key) const {
    const auto id = keys_.find(key);
    if (!id) return base::fail(id.error());
    if (!*id) return nullptr;
    auto op = find(**id);
    // What the agent's own end took back was no answer to the request.
    const bool interrupted = op && op->error && op->error->code == base::Errc::interrupted;
    if (interrupted && op->kind != guest_exec_kind) return nullptr;
    return op;
}

asio::awaitable<base::Result<void>> OperationService::remember(base::IdempotencyKey key, std::string id) {
    if (key.key.empty()) co_return base::Result<void>{};
    const auto row = keys_.row(key, id);
    storage::Changes changes;
    changes.emplace_back(row);
    auto done = co_await base::shielded(store_.commit(std::move(changes)));
    if (done) keys_.put(row);
    co_return done;
}

void OperationService::resume(const std::string& id, Work work) {
    const auto it = all_.find(id);
    assert(it != all_.end() && "restore() returned it");
    start(it->second, std::move(work));
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

OperationService::Ptr OperationService::last_of(std::string_view kind, std::string_view target_id) const {
    const auto newest_first = std::views::reverse(all_);
    const auto it = std::ranges::find_if(newest_first, [&](const auto& entry) {
        return entry.second->target.id == target_id && entry.second->kind == kind;
    });
    return it == newest_first.end() ? nullptr : it->second;
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

base::Result<OperationService::Ptr> OperationService::cancellable(const std::string& id) const {
    auto op = find(id);
    if (!op) return base::fail(base::Errc::not_found, "no operation " + id);
    const auto it = live_.find(id);
    if (is_terminal(op->state) || it == live_.end() || it->second->ending || !op->cancellable) {
        base::Error refused{base::Errc::state_conflict, is_terminal(op->state)
                                                            ? "the operation has ended already"
                                                            : "the operation can't be cancelled any more"};
        refused.facts["state"] = name_of(op->state);
        refused.facts["allowed"] = boost::json::array{};
        return base::fail(std::move(refused));
    }
    return op;
}

base::Result<OperationService::Ptr> OperationService::cancel(const std::string& id) {
    auto op = cancellable(id);
    if (op) live_.at(id)->cancel();
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
        prune.emplace_back(keys_.prune());
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
        if (const auto it = std::ranges::find(texts_, op.id, &Texts::first); it != texts_.end()) {
            texts_size_ -= it->second;
            texts_.erase(it);
        }
        return true;
    });
}

}  // namespace ghost::agent
