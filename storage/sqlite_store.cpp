#include "storage/sqlite_store.hpp"

#include "storage/state_database.hpp"
#include "storage/worker_pool.hpp"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

namespace ghost::storage {
namespace {

using base::Errc;
using base::Result;

constexpr std::size_t most_waiting = 1024;
constexpr std::size_t most_together = 64;

// What a store stands on when nothing else was given.
struct Machine {
    base::SystemClock clock;
    LocalDatabaseFiles files;
};

// Commits from the loop to the store's thread: while one waits for the disk, those behind it gather.
class CommitQueue {
public:
    void push(std::shared_ptr<Commit> commit) {
        const std::lock_guard lock{mutex_};
        waiting_.push_back(std::move(commit));
    }
    std::vector<std::shared_ptr<Commit>> take() {
        const std::lock_guard lock{mutex_};
        const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(std::min(waiting_.size(), most_together));
        std::vector<std::shared_ptr<Commit>> taken{waiting_.begin(), end};
        waiting_.erase(waiting_.begin(), end);
        return taken;
    }

private:
    std::mutex mutex_;
    std::deque<std::shared_ptr<Commit>> waiting_;
};

class SqliteStore final : public StateStore {
public:
    SqliteStore(const std::string& path, base::Log& log, const StoreOptions& options)
        : log_(log),
          clock_(options.clock != nullptr ? *options.clock : machine_.clock),
          database_({path, options.files != nullptr ? *options.files : machine_.files, options.exclusive}, log),
          pool_("store", options.inline_jobs ? 0 : 1, std::numeric_limits<std::size_t>::max()) {}

    Result<void> open() {
        auto opened = database_.open(times());
        health_ = database_.health();
        return opened;
    }

    boost::asio::awaitable<Result<StoredState>> load() override {
        auto job = [at = times()](StateDatabase& database) { return database.load(at); };
        co_return co_await run(std::move(job));
    }

    boost::asio::awaitable<Result<void>> commit(Changes changes) override {
        // Counted before it is queued: what is in the queue is certain to be run.
        if (pool_.queued() >= most_waiting) co_return base::fail(Errc::overloaded, "the store queue is full");
        const auto own = std::make_shared<Commit>(std::move(changes));
        queue_.push(own);
        auto job = [this, own, at = times()](StateDatabase& database) -> Result<void> {
            while (!own->over) {
                const auto next = queue_.take();
                if (next.empty()) break;  // lost with those that an exception took
                database.commit(next, at);
            }
            return own->result;
        };
        co_return co_await run(std::move(job));
    }

    boost::asio::awaitable<Result<void>> back_up() override {
        auto job = [at = times()](StateDatabase& database) { return database.back_up(at); };
        co_return co_await run(std::move(job));
    }

    StoreHealth health() const override { return health_; }

    boost::asio::awaitable<void> close() override {
        auto job = [](StateDatabase& database) { return database.close(); };
        const auto moved = co_await run(std::move(job));
        // Nothing is lost: what is in the log is read from there at the next start.
        if (!moved) log_.warn("the state database could not be checkpointed", {{"error", moved.error().detail}});
    }

private:
    [[nodiscard]] Times times() const { return {clock_.wall(), clock_.now()}; }

    template <class F>
    boost::asio::awaitable<std::invoke_result_t<F&, StateDatabase&>> run(F work) {
        std::optional<StoreHealth> after;
        auto job = [&] {
            auto done = work(database_);
            after = database_.health();
            return done;
        };
        auto done = co_await pool_.run(std::move(job));
        if (after) health_ = *std::move(after);
        co_return done;
    }

    base::Log& log_;
    Machine machine_;
    const base::Clock& clock_;
    StoreHealth health_;      // loop
    StateDatabase database_;  // the pool's thread only
    CommitQueue queue_;
    WorkerPool pool_;  // last: joins before the database goes
};

}  // namespace

Result<std::unique_ptr<StateStore>> open_sqlite_store(const std::string& path, base::Log& log,
                                                      const StoreOptions& options) {
    auto store = std::make_unique<SqliteStore>(path, log, options);
    if (auto opened = store->open(); !opened) return base::fail(std::move(opened).error());
    return store;
}

}  // namespace ghost::storage
