// Time that moves only when a test moves it.
#pragma once

#include "base/clock.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>

namespace ghost::fakes {

// For the loop's thread only. Must outlive every coroutine that sleeps on it.
class VirtualClock final : public base::Clock {
public:
    // Starts at 2026-01-02T03:04:05Z unless told otherwise.
    explicit VirtualClock(base::Wall start = base::from_unix_ms(1'767'323'045'000)) : wall_(start) {}

    [[nodiscard]] base::Wall wall() const override { return wall_; }
    [[nodiscard]] base::Instant now() const override { return now_; }
    [[nodiscard]] base::Duration asleep() const override { return asleep_; }
    [[nodiscard]] boost::asio::awaitable<bool> sleep_until(base::Instant when) override;

    // Moves time on and wakes, in the order of their times, all whose time has come. They run when the loop next runs,
    // and all see the end of the span.
    void advance(base::Duration span);

    // Moves time on as a real clock would: stops at each sleeper's time and lets `loop` run until it has nothing ready,
    // so that a sleeper sees the time it asked for and may sleep again within the span.
    void run_for(boost::asio::io_context& loop, base::Duration span);

    // Sets what a person's watch shows, as an administrator or NTP would; sleepers don't notice.
    void set_wall(base::Wall wall) { wall_ = wall; }

    // The machine is suspended for `span`: a person's watch goes on, timers don't.
    void sleep(base::Duration span) {
        wall_ += std::chrono::duration_cast<base::Wall::duration>(span);
        asleep_ += span;
    }

    [[nodiscard]] std::size_t sleepers() const noexcept { return waiting_.size(); }
    // When the next sleeper wakes.
    [[nodiscard]] std::optional<base::Instant> next() const;

private:
    struct Sleeper {
        boost::asio::steady_timer* timer = nullptr;
        bool* reached = nullptr;
    };
    using Key = std::pair<base::Instant, std::uint64_t>;  // the number keeps equal times in the order they were asked

    void move_to(base::Instant when);

    base::Wall wall_;
    base::Instant now_{std::chrono::hours{1}};
    base::Duration asleep_{};
    std::uint64_t asked_ = 0;
    std::map<Key, Sleeper> waiting_;
};

}  // namespace ghost::fakes
