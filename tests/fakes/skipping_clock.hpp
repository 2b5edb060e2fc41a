// Time for tests that have nothing else to wait for: whoever sleeps is woken at once, and it is then as late as it
// asked for.
#pragma once

#include "base/clock.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <algorithm>

namespace ghost::fakes {

class SkippingClock final : public base::Clock {
public:
    [[nodiscard]] base::Wall wall() const override { return base::from_unix_ms(1'767'323'045'000) + (now_ - start); }
    [[nodiscard]] base::Instant now() const override { return now_; }
    [[nodiscard]] boost::asio::awaitable<bool> sleep_until(base::Instant when) override {
        const auto throws = co_await boost::asio::this_coro::throw_if_cancelled();
        co_await boost::asio::this_coro::throw_if_cancelled(false);
        co_await boost::asio::post(boost::asio::use_awaitable);
        const auto state = co_await boost::asio::this_coro::cancellation_state;
        const bool reached = state.cancelled() == boost::asio::cancellation_type::none;
        if (reached) now_ = std::max(now_, when);
        co_await boost::asio::this_coro::throw_if_cancelled(throws);
        co_return reached;
    }
    [[nodiscard]] base::Duration slept() const noexcept { return now_ - start; }

private:
    static constexpr base::Instant start{std::chrono::hours{1}};
    base::Instant now_ = start;
};

}  // namespace ghost::fakes
