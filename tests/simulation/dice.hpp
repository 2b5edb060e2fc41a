// Every choice of a schedule, from its seed.
#pragma once

#include "base/random.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace ghost::simulation {

struct Weighted {
    std::string_view what;
    unsigned weight;
};

// SplitMix64.
class Dice final : public base::Random {
public:
    // Mixed, or the rolls of one seed would be those of the next, one later.
    explicit Dice(std::uint64_t seed) : state_(mixed(seed * 0x9e3779b97f4a7c15ULL + 0x1234567ULL)) {}

    void fill(std::span<std::byte> out) override {
        for (std::size_t at = 0; at < out.size(); at += sizeof(std::uint64_t)) {
            const auto value = roll();
            std::memcpy(out.data() + at, &value, std::min(sizeof value, out.size() - at));
        }
    }
    // In [0, n).
    [[nodiscard]] std::size_t below(std::size_t n) { return static_cast<std::size_t>(roll() % n); }
    // In [from, to].
    [[nodiscard]] std::size_t between(std::size_t from, std::size_t to) { return from + below(to - from + 1); }
    [[nodiscard]] bool percent(std::size_t chance) { return below(100) < chance; }
    template <class Range>
    [[nodiscard]] decltype(auto) pick(Range&& range) {
        return range[below(std::size(range))];
    }
    // One of `choices`, the oftener the weightier.
    [[nodiscard]] std::string_view pick_weighted(std::span<const Weighted> choices) {
        unsigned sum = 0;
        for (const auto& choice : choices) sum += choice.weight;
        auto at = below(sum);
        for (const auto& choice : choices) {
            if (at < choice.weight) return choice.what;
            at -= choice.weight;
        }
        return choices.front().what;
    }

private:
    std::uint64_t roll() { return mixed(state_ += 0x9e3779b97f4a7c15ULL); }
    static std::uint64_t mixed(std::uint64_t z) {
        z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31U);
    }

    std::uint64_t state_;
};

}  // namespace ghost::simulation
