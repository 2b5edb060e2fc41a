// A rate that several share: each takes what it has read and waits as long as it
// is told.
#pragma once

#include "base/clock.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace ghost::storage {

// Loop thread only. A rate of 0 is no limit.
class TokenBucket {
public:
    explicit TokenBucket(std::uint64_t bytes_per_second) : rate_(static_cast<double>(bytes_per_second)) {}

    // How long to wait after `bytes` more. What wasn't used is kept for a quarter of a second at most.
    [[nodiscard]] base::Duration take(std::uint64_t bytes, base::Instant now) {
        if (rate_ <= 0) return {};
        if (last_ != base::Instant{})
            tokens_ = std::min(rate_ / 4, tokens_ + rate_ * std::chrono::duration<double>(now - last_).count());
        last_ = now;
        tokens_ -= static_cast<double>(bytes);
        if (tokens_ >= 0) return {};
        return std::chrono::duration_cast<base::Duration>(std::chrono::duration<double>(-tokens_ / rate_));
    }

private:
    double rate_;  // bytes a second
    double tokens_ = 0;
    base::Instant last_{};
};

}  // namespace ghost::storage
