// Finishes what must not be abandoned half way, whatever happens to the caller.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <utility>

namespace ghost::base {

// Awaits `inner` to its end: a cancellation of the caller doesn't reach it (and makes itself felt at the caller's next
// co_await).
template <class T>
[[nodiscard]] boost::asio::awaitable<T> shielded(boost::asio::awaitable<T> inner) {
    const auto executor = co_await boost::asio::this_coro::executor;
    co_return co_await boost::asio::co_spawn(
        executor, std::move(inner),
        boost::asio::bind_cancellation_slot(boost::asio::cancellation_slot{}, boost::asio::use_awaitable));
}

}  // namespace ghost::base
