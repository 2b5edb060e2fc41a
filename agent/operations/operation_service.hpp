// The engine every change runs on: journals an operation before its first side
// effect, keeps one operation per target at a time, reports progress, cancels,
// lets callers wait, and commits the outcome together with what it changed.
#pragma once

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

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ghost::agent {

// How work ends that the agent's own end cuts off; the next start goes on with it.
[[nodiscard]] base::Error interrupted();

// What a running operation says of itself and asks. Lives as long as its work runs.
class OperationControl {
public:
    virtual ~OperationControl() = default;
    virtual void phase(std::string name) = 0;
    virtual void progress(std::uint64_t done, std::uint64_t total, std::string_view unit) = 0;
    // For virt::Hypervisor calls: marks the operation stalled until the next phase() or its end.
    [[nodiscard]] virtual std::function<void()> stalled() = 0;
    [[nodiscard]] virtual bool cancel_requested() const = 0;
    // True once the agent stops: leave everything as it is, the journal tells the next start.
    [[nodiscard]] virtual bool stopping() const = 0;
    // Runs `step` so that a cancel of the operation ends it, and only it, with Errc::cancelled.
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<void>> cancellable(
        boost::asio::awaitable<base::Result<void>> step) = 0;
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
};

class OperationService {
public:
    using Ptr = std::shared_ptr<const Operation>;

    OperationService(boost::asio::any_io_executor executor, base::Clock& clock, base::Random& random,
                     storage::StateStore& store, base::Log& log);

    // Fills the history from the database. Operations that were not finished are returned: the caller resumes each.
    [[nodiscard]] std::vector<Operation> restore(const std::vector<storage::OperationRow>& rows);

    // Journals the operation and starts `work`. Errors: operation_in_progress (facts: operation), draining,
    // overloaded (too many at once), those of the store; then nothing has happened. The target is locked from the
    // call on, before the first suspension.
    [[nodiscard]] boost::asio::awaitable<base::Result<Ptr>> begin(OperationRequest request, Work work);
    // Goes on with one that restore() returned.
    void resume(const std::string& id, Work work);

    [[nodiscard]] Ptr find(const std::string& id) const;
    [[nodiscard]] Ptr running_on(const std::string& target_id) const;  // the exclusive one, or nullptr
    [[nodiscard]] bool busy(const std::string& target_id) const { return locked_.contains(target_id); }
    [[nodiscard]] std::vector<Ptr> list() const;  // newest first
    // The history says that the target is no more: it was deleted, or its create came to nothing.
    [[nodiscard]] bool ended_without(std::string_view target_id) const;
    [[nodiscard]] std::size_t unfinished() const noexcept { return live_.size(); }

    // Waits until `id` is terminal or `limit` is over. Null when there is no such operation.
    [[nodiscard]] boost::asio::awaitable<Ptr> wait(std::string id, base::Duration limit);

    // Errors: not_found, state_conflict (finished, or not cancellable any more).
    [[nodiscard]] base::Result<Ptr> cancel(const std::string& id);

    // No more begin(); whoever waits gets the operation as it stands.
    void close_intake();
    // Those still running are interrupted; their rows go on saying so, and the next start resumes or undoes them.
    [[nodiscard]] boost::asio::awaitable<void> stop();

    // Deletes finished ones older than `history` from memory and database, now and then every hour, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> prune_forever();

    // Called at every visible change.
    std::function<void(const Operation&)> on_change;
    // Called for each that leaves the history.
    std::function<void(const std::string& id)> on_forgotten;

    static constexpr std::size_t max_unfinished = 256;
    static constexpr std::uint32_t max_history = 10'000;
    static constexpr std::chrono::hours history{24 * 7};

private:
    struct Live;  // a running operation's control

    boost::asio::awaitable<void> run(std::shared_ptr<Live> live, Work work);
    boost::asio::awaitable<bool> commit_end(Live& live, storage::Changes changes);
    void start(const std::shared_ptr<Operation>& operation, Work work);
    void changed(const Operation& operation);
    void forget_old(std::int64_t finished_before_ms);

    boost::asio::any_io_executor executor_;
    base::Clock& clock_;
    base::Random& random_;
    storage::StateStore& store_;
    base::Log& log_;
    base::TaskGroup tasks_;
    std::map<std::string, std::shared_ptr<Operation>> all_;  // by id: UUIDv7, hence by age
    std::map<std::string, std::shared_ptr<Live>> live_;      // by id
    std::map<std::string, std::string> locked_;              // target id -> operation id
    bool closed_ = false;                                    // no more begin()
    bool stopping_ = false;                                  // and what runs is being interrupted
};

[[nodiscard]] storage::OperationRow to_row(const Operation& operation);

}  // namespace ghost::agent
