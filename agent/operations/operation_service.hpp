// The engine every change runs on: journals an operation before its first side
// effect, keeps one operation per target at a time, reports progress, cancels,
// lets callers wait, and commits the outcome together with what it changed.
#pragma once

#include "agent/operations/idempotency.hpp"
#include "agent/operations/operation.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "base/random.hpp"
#include "base/task_group.hpp"
#include "storage/state_store.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ghost::agent {

// How work ends that the agent's own end cuts off; the next start goes on with it.
[[nodiscard]] base::Error interrupted();

// What a running operation says of itself and asks. Lives as long as its work runs.
class OperationControl {
public:
    using Abort = std::function<boost::asio::awaitable<void>()>;

    virtual ~OperationControl() = default;
    // Journals that the step before is done and this one begins; also the phase that is shown. Awaited before the
    // step's first side effect. Errors: those of the store; the step is not begun then.
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<void>> begin_step(std::string name) = 0;
    // Of an operation that a crash cut off and that is gone on with: how far `name` had got; null: it wasn't begun.
    [[nodiscard]] virtual const StepRecord* step_before(std::string_view name) const = 0;
    // Journals that what was done is taken back from here on, and why.
    [[nodiscard]] virtual boost::asio::awaitable<void> begin_undo(base::Error why) = 0;
    // What is shown, within a step.
    virtual void phase(std::string name) = 0;
    virtual void progress(std::uint64_t done, std::uint64_t total, std::string_view unit) = 0;
    // From here to the next phase it waits for a guest: it doesn't count among those that run.
    virtual void let_others_pass() = 0;
    // Waits before what failed with `why` is tried again: the error shows meanwhile, in phase "retry", others pass, and
    // a cancel is taken. False: it was cancelled, or the agent stops.
    [[nodiscard]] virtual boost::asio::awaitable<bool> wait_to_retry(base::Error why, base::Duration pause) = 0;
    // For virt::Hypervisor calls: marks the operation stalled until the next phase() or its end.
    [[nodiscard]] virtual std::function<void()> stalled() = 0;
    [[nodiscard]] virtual bool cancel_requested() const = 0;
    // True once the agent stops: leave everything as it is, the journal tells the next start.
    [[nodiscard]] virtual bool stopping() const = 0;
    // Runs `step` so that a cancel of the operation ends it, and only it, with Errc::cancelled.
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<void>> cancellable(
        boost::asio::awaitable<base::Result<void>> step) = 0;
    // Runs `step` to its end, whatever that is; a cancel of the operation meanwhile calls `abort`, again and again,
    // which is to make it fail. Errc::cancelled if it did.
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<void>> abortable(
        boost::asio::awaitable<base::Result<void>> step, Abort abort) = 0;
    // From here on a cancel is refused: what follows can't be taken back.
    virtual void no_more_cancel() = 0;
    [[nodiscard]] virtual const Operation& operation() const = 0;
};

// How an operation ended, and the rows that its end changes: committed together. `applied` runs on the loop right
// after that commit and before anybody who waits sees the end.
struct Outcome {
    base::Result<void> result;
    storage::Changes changes;
    std::function<void()> applied;
    std::optional<OperationAnswer> answer = {};  // of one that succeeded
};
using Work = std::function<boost::asio::awaitable<Outcome>(OperationControl&)>;

struct OperationRequest {
    std::string kind;
    OperationTarget target;
    base::Context context;
    bool cancellable = false;
    bool exclusive = true;    // false: passes beside a running operation of the target (a forced stop)
    std::string result_href;  // shown when it succeeds
    boost::json::object plan;
    storage::Changes accept_with;  // rows committed together with the operation's own
    // For a dry run: what it comes to, in sentences, and what it takes.
    std::vector<std::string> would = {};
    boost::json::object needs = {};
};

// How many run at a time; the others wait as `pending`, in the order they came.
struct OperationLimits {
    std::size_t running = 32;
    std::map<std::string, std::size_t, std::less<>> of_kind = {{"vm.create", 8}, {"image.add", 4}};
};

class OperationService {
public:
    using Ptr = std::shared_ptr<const Operation>;

    OperationService(boost::asio::any_io_executor executor, base::Clock& clock, base::Random& random,
                     storage::StateStore& store, base::Log& log, OperationLimits limits = {});

    // Fills the history from the database. Operations that were not finished are returned: the caller resumes each.
    [[nodiscard]] std::vector<Operation> restore(const std::vector<storage::OperationRow>& rows,
                                                 const std::vector<storage::KeyRow>& keys);

    // Of a dry run: an operation that carries a preview() and never was, or what begin() would refuse it with.
    [[nodiscard]] base::Result<Ptr> preview(OperationRequest request) const;
    // Journals the operation and starts `work`; with an idempotency key, that too. Errors: operation_in_progress
    // (facts: operation), draining, overloaded (too many at once), those of the store; then nothing has happened. The
    // target is locked from the call on, before the first suspension.
    [[nodiscard]] boost::asio::awaitable<base::Result<Ptr>> begin(OperationRequest request, Work work);
    // Goes on with one that restore() returned.
    void resume(const std::string& id, Work work);

    // The operation that the request with this key began; nullptr: none, or one that a crash undid, so that it is to be
    // begun again. Errors: idempotency_mismatch.
    [[nodiscard]] base::Result<Ptr> begun_with(const base::IdempotencyKey& key) const;
    // A key for what began no operation of its own (a cancel).
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> remember(base::IdempotencyKey key, std::string id);

    [[nodiscard]] Ptr find(const std::string& id) const;
    [[nodiscard]] Ptr running_on(const std::string& target_id) const;  // the exclusive one, or nullptr
    [[nodiscard]] bool busy(const std::string& target_id) const { return locked_.contains(target_id); }
    [[nodiscard]] std::vector<Ptr> list() const;  // newest first
    // The history says that the target is no more: it was deleted, or its create came to nothing.
    [[nodiscard]] bool ended_without(std::string_view target_id) const;
    // The newest of this kind in the history, or nullptr.
    [[nodiscard]] Ptr last_of(std::string_view kind, std::string_view target_id) const;
    [[nodiscard]] std::size_t unfinished() const noexcept { return live_.size(); }

    // Waits until `id` is terminal or `limit` is over. Null when there is no such operation.
    [[nodiscard]] boost::asio::awaitable<Ptr> wait(std::string id, base::Duration limit);

    // The operation, if it can be cancelled. Errors: not_found, state_conflict (finished, or not cancellable any more).
    [[nodiscard]] base::Result<Ptr> cancellable(const std::string& id) const;
    // Likewise, and cancels it.
    [[nodiscard]] base::Result<Ptr> cancel(const std::string& id);

    // No more begin(); whoever waits gets the operation as it stands.
    void close_intake();
    // Those still running are interrupted; their rows go on saying so, and the next start resumes or undoes them.
    [[nodiscard]] boost::asio::awaitable<void> stop();

    // Deletes finished ones older than `history` from memory and database, now and then every hour, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> prune_forever();

    // Called at every visible change.
    std::function<void(const Operation&)> on_change;
    // Called with an operation as it ends and the rows that its end changes, right before each try to commit them: what
    // they tell of may have changed since, by an operation beside it.
    std::function<void(const Operation& ended, storage::Changes&)> before_end;
    // Called for each that leaves the history.
    std::function<void(const std::string& id)> on_forgotten;

    static constexpr std::size_t max_unfinished = 256;
    static constexpr std::uint32_t max_history = 10'000;
    static constexpr std::chrono::hours history{24 * 7};
    // Bytes of answers' texts that are kept, the youngest; older ones expire before their operations do.
    static constexpr std::size_t max_texts = 16U << 20U;

private:
    class Live;                                         // a running operation's control
    using Texts = std::pair<std::string, std::size_t>;  // an operation's id and how much its answer's texts take

    boost::asio::awaitable<void> run(std::shared_ptr<Live> live, Work work);
    boost::asio::awaitable<bool> commit_end(const Operation& ended, storage::Changes changes);
    void start(const std::shared_ptr<Operation>& operation, Work work);
    void admit();
    boost::asio::awaitable<void> await_turn(Live& live);
    [[nodiscard]] base::Result<void> acceptable(const OperationRequest& request) const;
    void changed(const Operation& operation);
    void forget_old(std::int64_t finished_before_ms);
    void keep_texts(const Operation& ended, storage::Changes& changes);

    boost::asio::any_io_executor executor_;
    base::Clock& clock_;
    base::Random& random_;
    storage::StateStore& store_;
    base::Log& log_;
    OperationLimits limits_;
    base::TaskGroup tasks_;
    IdempotencyKeys keys_;
    std::map<std::string, std::shared_ptr<Operation>> all_;  // by id: UUIDv7, hence by age
    std::map<std::string, std::shared_ptr<Live>> live_;      // by id
    std::map<std::string, std::string> locked_;              // target id -> operation id
    std::deque<Texts> texts_;                                // of answers, in the order of their coming
    std::size_t texts_size_ = 0;
    bool closed_ = false;    // no more begin()
    bool stopping_ = false;  // and what runs is being interrupted
};

[[nodiscard]] storage::OperationRow to_row(const Operation& operation);

}  // namespace ghost::agent
