#include "storage/worker_pool.hpp"

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

#include <pthread.h>

namespace ghost::storage {
namespace {

void name_this_thread(const std::string& name) {
    thread_local bool named = false;
    if (std::exchange(named, true)) return;
    ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
}

}  // namespace

WorkerPool::WorkerPool(std::string name, std::size_t threads, std::size_t max_queued)
    : name_(std::move(name)), max_queued_(max_queued) {
    if (threads > 0) pool_.emplace(threads);
}

WorkerPool::~WorkerPool() {
    if (pool_) pool_->join();
    while (run_next(*own_turn_, Then::post)) {
    }
}

bool WorkerPool::run_next(std::deque<Job>& jobs, Then then) {
    if (jobs.empty()) return false;
    auto job = std::move(jobs.front());
    jobs.pop_front();
    job(then);
    return true;
}

// Not co_spawn: in Boost 1.81 a cancellation that reaches a coroutine on another thread races with its end.
boost::asio::awaitable<void> WorkerPool::perform(std::function<void()> body, std::atomic<bool>& stop) {
    auto start = [this, &body, &stop](auto handler) {
        ++*queued_;
        auto slot = boost::asio::get_associated_cancellation_slot(handler);
        if (slot.is_connected()) slot.assign([&stop](boost::asio::cancellation_type) { stop = true; });
        auto loop = boost::asio::make_work_guard(boost::asio::get_associated_executor(handler));
        const auto executor = loop.get_executor();
        auto job = [name = pool_ ? name_ : std::string{}, &body, slot, loop = std::move(loop), queued = queued_,
                    handler = std::move(handler)](Then then) mutable {
            if (!name.empty()) name_this_thread(name);
            body();
            auto resume = [slot, queued = std::move(queued), handler = std::move(handler)]() mutable {
                --*queued;
                if (slot.is_connected()) slot.clear();
                std::move(handler)();
            };
            if (then == Then::resume)
                resume();
            else
                boost::asio::post(loop.get_executor(), std::move(resume));
        };
        if (pool_) {
            boost::asio::post(*pool_, [job = std::move(job)]() mutable { job(Then::post); });
        } else {
            own_turn_->push_back(std::move(job));
            // Whichever turn comes first runs the oldest job.
            boost::asio::post(executor, [jobs = own_turn_] { run_next(*jobs, Then::resume); });
        }
    };
    co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>, void()>(std::move(start),
                                                                                       boost::asio::use_awaitable);
}

}  // namespace ghost::storage
