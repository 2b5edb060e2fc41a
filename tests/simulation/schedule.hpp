// One run of everything, under a seed.
#pragma once

#include "simulation/trace.hpp"

#include <cstdint>

namespace ghost::simulation {

// What happened, and what didn't hold, is told to `trace`.
void run_schedule(std::uint64_t seed, Trace& trace);

}  // namespace ghost::simulation
