#include "agent/access/replay.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace ghost::agent {

void Replay::add(std::string_view bytes) {
    if (bytes.empty()) return;
    ring_.resize(size);
    const auto skipped = bytes.size() - std::min(bytes.size(), size);
    end_ += skipped;
    bytes.remove_prefix(skipped);
    const auto at = static_cast<std::size_t>(end_ % size);
    const auto first = std::min(bytes.size(), size - at);
    std::ranges::copy(bytes.substr(0, first), ring_.begin() + static_cast<std::ptrdiff_t>(at));
    std::ranges::copy(bytes.substr(first), ring_.begin());
    end_ += bytes.size();
    kept_ = std::min(size, kept_ + skipped + bytes.size());
}

std::size_t Replay::copy(std::uint64_t place, std::span<char> room) const {
    if (place >= end_) return 0;
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(end_ - place, room.size()));
    const auto at = static_cast<std::size_t>(place % size);
    const auto first = std::min(length, size - at);
    std::copy_n(ring_.begin() + static_cast<std::ptrdiff_t>(at), first, room.begin());
    std::copy_n(ring_.begin(), length - first, room.begin() + static_cast<std::ptrdiff_t>(first));
    return length;
}

// Knuth, Morris and Pratt's search for `live` in `tail`: what is matched where `tail` ends is the overlap.
std::string join_log(std::string tail, std::string_view live) {
    if (live.empty()) return tail;
    // Of live's first i + 1 bytes: the longest proper prefix that they also end with.
    std::vector<std::size_t> border(live.size());
    for (std::size_t i = 1, matched = 0; i < live.size(); ++i) {
        while (matched > 0 && live[i] != live[matched]) matched = border[matched - 1];
        if (live[i] == live[matched]) ++matched;
        border[i] = matched;
    }
    std::size_t matched = 0;
    for (const char c : tail) {
        while (matched > 0 && (matched == live.size() || c != live[matched])) matched = border[matched - 1];
        if (c == live[matched]) ++matched;
    }
    tail += live.substr(matched);
    return tail;
}

}  // namespace ghost::agent
