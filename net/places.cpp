#include "net/places.hpp"

#include <cassert>
#include <utility>

namespace ghost::net {

std::optional<Places::Place> Places::take(std::string identity) {
    if (each_ == 0) return std::nullopt;
    auto& count = taken_[identity];
    if (count >= each_) return std::nullopt;
    ++count;
    return std::optional<Place>{std::in_place, shared_from_this(), std::move(identity)};
}

void Places::give_back(const std::string& identity) noexcept {
    const auto it = taken_.find(identity);
    assert(it != taken_.end() && it->second > 0);
    if (--it->second == 0) taken_.erase(it);
}

}  // namespace ghost::net
