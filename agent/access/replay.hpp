// The last of what a console said, for those who come later or read slowly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ghost::agent {

// Bytes by their place in all that was ever added, of which the last `size` are kept.
class Replay {
public:
    static constexpr std::size_t size = 64 * 1024;

    void add(std::string_view bytes);
    // Places of the first byte that is kept, and of the one that comes next.
    [[nodiscard]] std::uint64_t begin() const noexcept { return end_ - kept_; }
    [[nodiscard]] std::uint64_t end() const noexcept { return end_; }
    // From `place` on, which isn't before begin(), as much as there is and fits.
    std::size_t copy(std::uint64_t place, std::span<char> room) const;

private:
    std::string ring_;  // of `size` once something was added
    std::uint64_t end_ = 0;
    std::size_t kept_ = 0;
};

// Both came from one console: `tail` is the end of its log, `live` was read from its device from some moment on. What
// is in both stands in the answer once: the longest end of `tail` that `live` begins with.
[[nodiscard]] std::string join_log(std::string tail, std::string_view live);

}  // namespace ghost::agent
