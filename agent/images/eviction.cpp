#include "agent/images/eviction.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace ghost::agent {

std::vector<Evictable> choose_evictions(std::vector<Evictable> all, std::uint64_t bytes) {
    std::ranges::sort(all, {},
                      [](const Evictable& e) { return std::tuple{!e.image.empty(), e.last_used, e.digest, e.part}; });
    std::uint64_t freed = 0;
    std::size_t count = 0;
    while (freed < bytes && count < all.size()) freed += all[count++].bytes;
    all.resize(freed < bytes ? 0 : count);
    // What came first may have become needless.
    for (auto it = all.begin(); it != all.end();) {
        if (freed - it->bytes < bytes) {
            ++it;
            continue;
        }
        freed -= it->bytes;
        it = all.erase(it);
    }
    return all;
}

std::string describe(const Evictable& what) {
    if (!what.part.empty()) return fmt::format("delete what is left of a download ({} bytes)", what.bytes);
    if (what.image.empty())
        return fmt::format("delete the blob {}, which has no name ({} bytes)", what.digest, what.bytes);
    return fmt::format("delete the image {} ({} bytes)", what.image, what.bytes);
}

}  // namespace ghost::agent
