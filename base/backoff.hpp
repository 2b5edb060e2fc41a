// When to try again: doubling from `min` to `max`, each wait somewhere in the
// upper half of its step so that many hosts don't come back at once.
#pragma once

#include "base/clock.hpp"
#include "base/random.hpp"

#include <algorithm>
#include <chrono>

namespace ghost::base {

class Backoff {
public:
    Backoff(Duration min, Duration max) : min_(min), max_(max), step_(min) {}

    [[nodiscard]] Duration next(Random& random) {
        const auto step = step_;
        step_ = std::min(step_ * 2, max_);
        return std::chrono::duration_cast<Duration>(step * (0.5 + 0.5 * random.uniform()));
    }
    void reset() { step_ = min_; }

private:
    Duration min_;
    Duration max_;
    Duration step_;
};

}  // namespace ghost::base
