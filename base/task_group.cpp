#include "base/task_group.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <cassert>
#include <exception>
#include <utility>

namespace ghost::base {
namespace {

boost::asio::awaitable<void> cancellable(boost::asio::awaitable<void> task) {
    co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::enable_total_cancellation());
    co_await std::move(task);
}

void report(Log& log, const std::string& name, const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const boost::system::system_error& e) {
        if (e.code() != boost::asio::error::operation_aborted)
            log.error("task ended by an exception", {{"task", name}, {"error", e.what()}});
    } catch (const std::exception& e) {
        log.error("task ended by an exception", {{"task", name}, {"error", e.what()}});
    }
}

}  // namespace

TaskGroup::TaskGroup(boost::asio::any_io_executor executor, Log& log)
    : executor_(std::move(executor)), log_(log), empty_(executor_, Instant::max()) {}

TaskGroup::~TaskGroup() { assert(tasks_.empty() && "drain() a TaskGroup before it goes"); }

void TaskGroup::spawn(std::string name, boost::asio::awaitable<void> task) {
    const auto it = tasks_.emplace(tasks_.end());
    it->name = std::move(name);
    boost::asio::co_spawn(executor_, cancellable(std::move(task)),
                          boost::asio::bind_cancellation_slot(it->stop.slot(), [this, it](std::exception_ptr error) {
                              if (error) report(log_, it->name, error);
                              tasks_.erase(it);
                              if (tasks_.empty()) empty_.cancel();
                          }));
}

void TaskGroup::cancel(boost::asio::cancellation_type type) {
    // A handler may end its task at once and erase it: hold the next before emitting.
    for (auto it = tasks_.begin(); it != tasks_.end();) (it++)->stop.emit(type);
}

boost::asio::awaitable<void> TaskGroup::drain() {
    co_await boost::asio::this_coro::throw_if_cancelled(false);
    while (!tasks_.empty()) {
        empty_.expires_at(Instant::max());
        co_await empty_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    }
}

}  // namespace ghost::base
