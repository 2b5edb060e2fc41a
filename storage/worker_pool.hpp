// A few named threads for work that waits for a disk. The loop co_awaits a
// job's result; jobs start in order.
#pragma once

#include "base/error.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace ghost::storage {

// Runs a `Result<T>()` on the pool and resumes on the awaiting coroutine's executor. A cancellation does not recall a
// job: the coroutine resumes when it has ended, with its result. An exception of the job is rethrown to the coroutine.
// With `max_queued` jobs waiting or running: overloaded. Destroy it before the executors its callers run on.
class WorkerPool {
public:
    // `name` becomes the threads' name (15 characters count). Without threads jobs run on the awaiting coroutine's own
    // executor after one post, in the same order: for a simulation on one thread.
    WorkerPool(std::string name, std::size_t threads, std::size_t max_queued = 1024);
    ~WorkerPool();  // finishes what was queued, joins
    WorkerPool(const WorkerPool&) = delete;
    WorkerPool& operator=(const WorkerPool&) = delete;

    template <class F>
    [[nodiscard]] boost::asio::awaitable<std::invoke_result_t<F&>> run(F job);

    // For long jobs, `Result<T>(const std::atomic<bool>& stop)`: the flag rises when the awaiting coroutine is
    // cancelled, and the job looks at it between its chunks.
    template <class F>
    [[nodiscard]] boost::asio::awaitable<std::invoke_result_t<F&, const std::atomic<bool>&>> run_stoppable(F job);

    // Jobs waiting or running. Loop thread.
    [[nodiscard]] std::size_t queued() const noexcept { return *queued_; }

private:
    enum class Then : std::uint8_t { resume, post };
    using Job = std::move_only_function<void(Then)>;

    static bool run_next(std::deque<Job>& jobs, Then then);
    // `body` does not throw. It lives in the awaiting coroutine's frame, which the queued job keeps alive.
    [[nodiscard]] boost::asio::awaitable<void> perform(std::function<void()> body, std::atomic<bool>& stop);

    std::optional<boost::asio::thread_pool> pool_;
    std::shared_ptr<std::deque<Job>> own_turn_ = std::make_shared<std::deque<Job>>();  // without threads
    std::string name_;
    std::size_t max_queued_;
    std::shared_ptr<std::size_t> queued_ = std::make_shared<std::size_t>(0);  // loop thread only
};

template <class F>
boost::asio::awaitable<std::invoke_result_t<F&, const std::atomic<bool>&>> WorkerPool::run_stoppable(F job) {
    if (*queued_ >= max_queued_) co_return base::fail(base::Errc::overloaded, "the " + name_ + " queue is full");
    std::atomic<bool> stop{false};
    std::optional<std::invoke_result_t<F&, const std::atomic<bool>&>> result;
    std::exception_ptr thrown;
    std::function<void()> body = [&] {
        try {
            result.emplace(job(stop));
        } catch (...) {
            thrown = std::current_exception();
        }
    };
    co_await perform(std::move(body), stop);
    if (thrown) std::rethrow_exception(thrown);
    co_return std::move(*result);
}

template <class F>
boost::asio::awaitable<std::invoke_result_t<F&>> WorkerPool::run(F job) {
    auto deaf = [&job](const std::atomic<bool>&) { return job(); };
    co_return co_await run_stoppable(std::move(deaf));
}

}  // namespace ghost::storage
