// When to try Ghost Core again: "full jitter", so that many agents don't come
// back at once, and never before Core has asked for it. No I/O.
#pragma once

#include "base/clock.hpp"
#include "base/random.hpp"

#include <algorithm>
#include <chrono>
#include <optional>

namespace ghost::heartbeat {

class Retry {
public:
    static constexpr std::chrono::seconds first{1};
    static constexpr std::chrono::minutes longest{5};
    static constexpr std::chrono::hours longest_floor{1};  // of what a Retry-After is believed

    // rand(0, min(5 min, 1 s * 2^failures)), at least what Core asked for.
    [[nodiscard]] base::Duration after_failure(base::Random& random, std::optional<std::chrono::seconds> retry_after) {
        const auto step = std::min<base::Duration>(longest, first * (1U << std::min(failures_, 9U)));
        ++failures_;
        auto wait = std::chrono::duration_cast<base::Duration>(step * random.uniform());
        if (retry_after) {
            const base::Duration floor =
                std::clamp<std::chrono::seconds>(*retry_after, std::chrono::seconds::zero(), longest_floor);
            // Those who were told the same second don't all come in it.
            wait = std::max(wait, floor + std::min<base::Duration>(wait, floor / 4 + first));
        }
        return wait;
    }
    void succeeded() noexcept { failures_ = 0; }
    [[nodiscard]] unsigned failures() const noexcept { return failures_; }

private:
    unsigned failures_ = 0;
};

}  // namespace ghost::heartbeat
