// That beats go on, whatever else hangs, as long as nothing is wrong with Core and the way to it.
#pragma once

#include "simulation/machine.hpp"

#include <optional>

namespace ghost::simulation {

class BeatWatch {
public:
    explicit BeatWatch(Machine& machine) : m_(machine) {}

    // When nothing is ready at a moment. `calm`: neither Core nor the way to it has a fault.
    void look(bool calm);

private:
    Machine& m_;
    std::optional<base::Instant> calm_since_;
    std::size_t violations_ = 0;
};

}  // namespace ghost::simulation
