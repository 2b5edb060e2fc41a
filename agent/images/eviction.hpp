// Which of what can be had again goes when room is needed.
#pragma once

#include "base/clock.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace ghost::agent {

// Something in the cache that nobody refers to and that can be had again.
struct Evictable {
    std::string image = {};   // name of an image; empty: a blob that has none any more, or what is left of a download
    std::string digest = {};  // of a blob
    std::string format = {};
    std::string part = {};  // of a download: its work name
    std::uint64_t bytes = 0;
    base::Wall last_used = {};
};

// The fewest that free `bytes`, in the order in which they go: what has no name first, then what was used longest ago.
// None when all of them together wouldn't free enough, for then nothing is to go.
[[nodiscard]] std::vector<Evictable> choose_evictions(std::vector<Evictable> all, std::uint64_t bytes);

[[nodiscard]] std::string describe(const Evictable& what);

}  // namespace ghost::agent
