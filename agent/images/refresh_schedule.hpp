// When images are brought up to date: once a week, at a time of the week that
// isn't everybody's.
#pragma once

#include "base/clock.hpp"
#include "base/random.hpp"

#include <chrono>

namespace ghost::agent {

inline constexpr std::chrono::hours refresh_period{24 * 7};

// Of an agent that has none yet: some time in the coming week.
[[nodiscard]] inline base::Wall first_refresh(base::Wall now, base::Random& random) {
    return now + std::chrono::duration_cast<std::chrono::milliseconds>(refresh_period * random.uniform());
}
// After one that came about at `now`: in a week, half a day sooner or later.
[[nodiscard]] inline base::Wall next_refresh(base::Wall now, base::Random& random) {
    const auto shift = std::chrono::hours{24} * (random.uniform() - 0.5);
    return now + refresh_period + std::chrono::duration_cast<std::chrono::milliseconds>(shift);
}
// What was kept, unless the clock was wrong when it was: never further away than the longest there is.
[[nodiscard]] inline base::Wall kept_refresh(base::Wall kept, base::Wall now, base::Random& random) {
    return kept > now + refresh_period + std::chrono::hours{12} ? first_refresh(now, random) : kept;
}

}  // namespace ghost::agent
