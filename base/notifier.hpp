// A condition to wait for on the loop: whoever waits is woken by the next
// notify(). For one executor; not thread-safe.
#pragma once

#include "base/clock.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace ghost::base {

class Notifier {
public:
    explicit Notifier(const boost::asio::any_io_executor& executor) : timer_(executor, Instant::max()) {}

    void notify() {
        timer_.cancel();
        timer_.expires_at(Instant::max());
    }
    // Until the next notify(), or cancellation.
    [[nodiscard]] boost::asio::awaitable<void> wait() {
        co_await timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    }
    // Until the next notify() or until `when` on `clock`.
    [[nodiscard]] boost::asio::awaitable<void> wait_until(Clock& clock, Instant when) {
        using namespace boost::asio::experimental::awaitable_operators;
        co_await (wait() || clock.sleep_until(when));
    }

private:
    boost::asio::steady_timer timer_;
};

}  // namespace ghost::base
