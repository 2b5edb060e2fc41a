#include "tests/fakes/virtual_clock.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <cassert>

namespace ghost::fakes {

boost::asio::awaitable<bool> VirtualClock::sleep_until(base::Instant when) {
    // The timer never fires by itself: it is what a coroutine can wait on and what both waking and cancelling end.
    boost::asio::steady_timer timer{co_await boost::asio::this_coro::executor, base::Instant::max()};
    bool reached = when <= now_;
    if (reached) timer.expires_at(base::Instant::min());

    const Key key{when, ++asked_};
    struct Place {  // taken back however the wait ends, also when the coroutine is destroyed
        std::map<Key, Sleeper>& waiting;
        Key key;
        ~Place() { waiting.erase(key); }
    } const place{waiting_, key};
    if (!reached) waiting_.emplace(key, Sleeper{&timer, &reached});

    co_await timer.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    co_return reached;
}

void VirtualClock::move_to(base::Instant when) {
    wall_ += std::chrono::duration_cast<base::Wall::duration>(when - now_);
    now_ = when;
    while (!waiting_.empty() && waiting_.begin()->first.first <= now_) {
        const auto sleeper = waiting_.begin()->second;
        waiting_.erase(waiting_.begin());
        *sleeper.reached = true;
        sleeper.timer->cancel();
    }
}

void VirtualClock::advance(base::Duration span) {
    assert(span >= base::Duration::zero());
    move_to(now_ + span);
}

void VirtualClock::run_for(boost::asio::io_context& loop, base::Duration span) {
    const auto end = now_ + span;
    const auto settle = [&loop] {
        loop.restart();
        while (loop.poll() != 0) {
        }
    };
    for (settle(); next().value_or(end) < end; settle()) move_to(*next());
    move_to(end);
    settle();
}

std::optional<base::Instant> VirtualClock::next() const {
    return waiting_.empty() ? std::nullopt : std::optional{waiting_.begin()->first.first};
}

}  // namespace ghost::fakes
