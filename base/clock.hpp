// Time as a seam: everything that waits or stamps asks a Clock, so that tests
// (and a whole simulated agent) run on virtual time.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::base {

using Wall = std::chrono::system_clock::time_point;     // what a person's watch shows; may jump
using Instant = std::chrono::steady_clock::time_point;  // for intervals and deadlines; never jumps
using Duration = std::chrono::steady_clock::duration;

class Clock {
public:
    virtual ~Clock() = default;
    [[nodiscard]] virtual Wall wall() const = 0;
    [[nodiscard]] virtual Instant now() const = 0;
    // How long the machine has been suspended since its boot: now() stands still meanwhile, wall() doesn't.
    [[nodiscard]] virtual Duration asleep() const { return Duration::zero(); }

    // True when `when` was reached, false when the coroutine was cancelled first. Never throws for a cancellation,
    // but the coroutine's next co_await will unless it called throw_if_cancelled(false).
    [[nodiscard]] virtual boost::asio::awaitable<bool> sleep_until(Instant when) = 0;
    [[nodiscard]] boost::asio::awaitable<bool> sleep_for(Duration span) { return sleep_until(now() + span); }
};

// The machine's clocks, with asio timers on the awaiting coroutine's executor.
class SystemClock final : public Clock {
public:
    [[nodiscard]] Wall wall() const override { return std::chrono::system_clock::now(); }
    [[nodiscard]] Instant now() const override { return std::chrono::steady_clock::now(); }
    [[nodiscard]] Duration asleep() const override;
    [[nodiscard]] boost::asio::awaitable<bool> sleep_until(Instant when) override;
};

// RFC 3339 in UTC: "2026-01-02T03:04:05Z" (rfc3339) or with milliseconds (rfc3339_ms).
[[nodiscard]] std::string rfc3339(Wall time);
[[nodiscard]] std::string rfc3339_ms(Wall time);
// The same, read: with or without a fraction, of which milliseconds count; in UTC, or with an offset such as +02:00.
[[nodiscard]] std::optional<Wall> wall_from_rfc3339(std::string_view text);

// Milliseconds since the Unix epoch, as times are stored.
[[nodiscard]] std::int64_t to_unix_ms(Wall time);
[[nodiscard]] Wall from_unix_ms(std::int64_t ms);

}  // namespace ghost::base
