// Random numbers that repeat: the same seed gives the same bytes.
#pragma once

#include "base/random.hpp"

#include <cstdint>
#include <random>

namespace ghost::fakes {

class SeededRandom final : public base::Random {
public:
    explicit SeededRandom(std::uint64_t seed = 1) : engine_(seed) {}

    void fill(std::span<std::byte> out) override {
        for (auto& byte : out) byte = static_cast<std::byte>(engine_() & 0xff);
    }

private:
    std::mt19937_64 engine_;
};

}  // namespace ghost::fakes
