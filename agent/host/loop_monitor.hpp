// How late the loop is: a timer that should fire every 100 ms, and by how much
// it missed.
#pragma once

#include "base/clock.hpp"

#include <boost/asio/awaitable.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>

namespace ghost::agent {

class LoopMonitor {
public:
    explicit LoopMonitor(base::Clock& clock) : clock_(clock) {}
    [[nodiscard]] boost::asio::awaitable<void> run();  // until cancelled

    struct Lag {
        std::chrono::microseconds p50{};
        std::chrono::microseconds p99{};
        std::chrono::microseconds max{};
    };
    [[nodiscard]] Lag last_minute() const;
    // When the loop last showed itself alive; feeds the service manager's watchdog.
    std::function<void()> on_tick;
    std::function<void(std::chrono::microseconds)> on_lag;

    static constexpr std::chrono::milliseconds interval{100};

private:
    base::Clock& clock_;
    std::array<std::chrono::microseconds, 600> samples_{};
    std::size_t count_ = 0;  // taken since the start
};

}  // namespace ghost::agent
