// The host's sleep and its wakes. logind tells of a sleep before it begins;
// that the machine has slept shows in its clocks, with or without logind.
#pragma once

#include "agent/host/logind.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "base/task_group.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <functional>
#include <optional>

namespace ghost::agent {

// Says of each wake once how long the machine slept. Every `asleep` is what the clock's asleep() shows then.
class WakeDetector {
public:
    explicit WakeDetector(base::Duration asleep) : seen_(asleep), told_at_(asleep) {}

    // To be asked every second.
    [[nodiscard]] std::optional<base::Duration> look(base::Duration asleep);
    // logind says that the machine goes to sleep, and that it is awake again. A sleep that was told of has a wake even
    // if it came to nothing: the next look() says so.
    void told_of_sleep(base::Duration asleep);
    [[nodiscard]] std::optional<base::Duration> told_of_wake(base::Duration asleep);

    static constexpr std::chrono::seconds least{2};  // what is shorter is no sleep

private:
    base::Duration seen_;
    base::Duration told_at_;
    bool told_ = false;   // of a sleep whose wake nobody was told of yet
    bool awake_ = false;  // told of its end, too
};

// Loop thread only.
class SleepWatch {
public:
    // `logind`: may be null, outlives us.
    SleepWatch(const boost::asio::any_io_executor& executor, Logind* logind, base::Clock& clock, base::Log& log)
        : logind_(logind),
          clock_(clock),
          log_(log),
          detector_(clock.asleep()),
          told_(executor),
          tellings_(executor, log),
          tasks_(executor, log) {}

    // Until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();

    // The host sleeps when it has returned, or after `patience`: it is cancelled then.
    std::function<boost::asio::awaitable<void>()> before_sleep = {};
    // The host woke up; once for each wake. Zero: it had said that it would sleep, and didn't.
    std::function<void(base::Duration slept)> on_wake = {};

    static constexpr std::chrono::seconds look_interval{1};
    static constexpr std::chrono::seconds patience{2};
    static constexpr std::chrono::seconds answer_limit{10};  // of bus and logind
    static constexpr std::chrono::seconds reconnect_after{5};
    static constexpr std::chrono::minutes absent_interval{1};

private:
    boost::asio::awaitable<void> listen_forever();
    boost::asio::awaitable<base::Result<void>> listen();
    boost::asio::awaitable<base::Result<void>> inhibit();
    boost::asio::awaitable<void> prepare();
    boost::asio::awaitable<void> tell();
    void woke(std::optional<base::Duration> slept);

    Logind* logind_;
    base::Clock& clock_;
    base::Log& log_;
    WakeDetector detector_;
    bool listening_ = false;
    bool telling_ = false;
    base::Notifier told_;
    base::TaskGroup tellings_;
    base::TaskGroup tasks_;
};

}  // namespace ghost::agent
