// Whether somebody has asked the coroutine that awaits this to end.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/this_coro.hpp>

namespace ghost::base {

// For coroutines that run with throw_if_cancelled(false).
[[nodiscard]] inline boost::asio::awaitable<bool> is_cancelled() {
    const auto state = co_await boost::asio::this_coro::cancellation_state;
    co_return state.cancelled() != boost::asio::cancellation_type::none;
}

}  // namespace ghost::base
