#include "base/clock.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <algorithm>
#include <ctime>

namespace ghost::base {
namespace {

Duration read_clock(clockid_t which) {
    timespec time{};
    ::clock_gettime(which, &time);
    return std::chrono::seconds{time.tv_sec} + std::chrono::nanoseconds{time.tv_nsec};
}

}  // namespace

// The kernel gives no two clocks at once: a reading in whose middle we were held up counts that as sleep, and is made
// again.
Duration SystemClock::asleep() const {
    constexpr std::chrono::milliseconds close_enough{10};
    constexpr int most_tries = 10;
    auto asleep = Duration::max();
    for (int tries = 0; tries < most_tries; ++tries) {
        const auto before = read_clock(CLOCK_MONOTONIC);
        const auto boot = read_clock(CLOCK_BOOTTIME);
        asleep = std::min(asleep, std::max(boot - before, Duration::zero()));
        if (read_clock(CLOCK_MONOTONIC) - before < close_enough) break;
    }
    return asleep;
}

boost::asio::awaitable<bool> SystemClock::sleep_until(Instant when) {
    boost::asio::steady_timer timer{co_await boost::asio::this_coro::executor, when};
    const auto [ec] = co_await timer.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    co_return !ec;
}

std::int64_t to_unix_ms(Wall time) {
    return std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

Wall from_unix_ms(std::int64_t ms) { return Wall{std::chrono::milliseconds{ms}}; }

}  // namespace ghost::base
