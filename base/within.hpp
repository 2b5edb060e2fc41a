// A limit on a wait, by the clock it is given.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>

#include <utility>
#include <variant>

namespace ghost::base {

// What `work` comes to, or deadline_exceeded after `limit`: then it was cancelled, and its end was awaited. Errors
// besides its own: cancelled, with the caller.
template <class T>
[[nodiscard]] boost::asio::awaitable<Result<T>> within(Clock& clock, Duration limit,
                                                       boost::asio::awaitable<Result<T>> work) {
    using namespace boost::asio::experimental::awaitable_operators;
    auto first = co_await (std::move(work) || clock.sleep_for(limit));
    if (auto* const result = std::get_if<0>(&first)) co_return std::move(*result);
    if (std::get<1>(first)) co_return fail(Errc::deadline_exceeded, "no end within the limit");
    co_return fail(Errc::cancelled, "cancelled while waiting");
}

}  // namespace ghost::base
