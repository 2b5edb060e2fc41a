#include "agent/host/loop_monitor.hpp"

#include <algorithm>
#include <vector>

namespace ghost::agent {

boost::asio::awaitable<void> LoopMonitor::run() {
    auto due = clock_.now() + interval;
    while (co_await clock_.sleep_until(due)) {
        const auto now = clock_.now();
        const auto lag = std::chrono::duration_cast<std::chrono::microseconds>(now - due);
        samples_.at(count_++ % samples_.size()) = lag;
        if (on_lag) on_lag(lag);
        if (on_tick) on_tick();
        due = now + interval;
    }
}

LoopMonitor::Lag LoopMonitor::last_minute() const {
    std::vector<std::chrono::microseconds> sorted(
        samples_.begin(), samples_.begin() + static_cast<std::ptrdiff_t>(std::min(count_, samples_.size())));
    if (sorted.empty()) return {};
    std::ranges::sort(sorted);
    const auto at = [&sorted](std::size_t percent) { return sorted.at((sorted.size() - 1) * percent / 100); };
    return {at(50), at(99), sorted.back()};
}

}  // namespace ghost::agent
