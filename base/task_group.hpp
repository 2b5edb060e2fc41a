// Coroutines with an owner: spawned together, cancelled together, awaited
// together. Nothing in the daemon is spawned detached.
#pragma once

#include "base/clock.hpp"
#include "base/log.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/steady_timer.hpp>

#include <cstddef>
#include <list>
#include <string>

namespace ghost::base {

// Lives on one executor (the loop's); not thread-safe. Must be empty when destroyed: drain() first.
class TaskGroup {
public:
    TaskGroup(boost::asio::any_io_executor executor, Log& log);
    ~TaskGroup();
    TaskGroup(const TaskGroup&) = delete;
    TaskGroup& operator=(const TaskGroup&) = delete;

    // Starts `task`. An exception that escapes it is logged as a bug of `name` and ends only that task; a
    // cancellation is no error.
    void spawn(std::string name, boost::asio::awaitable<void> task);

    // Asks every task to stop; `total` lets a task finish what it has begun if it honours that, `terminal` doesn't.
    void cancel(boost::asio::cancellation_type type = boost::asio::cancellation_type::terminal);

    // Resumes when no task is left. Tasks may be spawned meanwhile.
    [[nodiscard]] boost::asio::awaitable<void> drain();

    [[nodiscard]] std::size_t size() const noexcept { return tasks_.size(); }

private:
    struct Task {
        std::string name;
        boost::asio::cancellation_signal stop;
    };
    boost::asio::any_io_executor executor_;
    Log& log_;
    std::list<Task> tasks_;
    boost::asio::steady_timer empty_;
};

}  // namespace ghost::base
