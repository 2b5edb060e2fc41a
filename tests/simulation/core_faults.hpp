// What goes wrong with Ghost Core, the way to it and the clocks of both, until all of it is healed.
#pragma once

#include "simulation/machine.hpp"

namespace ghost::simulation {

class CoreFaults {
public:
    explicit CoreFaults(Machine& machine) : m_(machine) {}

    // Something begins to go wrong, or ends.
    void act();
    void heal();
    // Nothing is wrong that could keep a beat away.
    [[nodiscard]] bool calm() const;

private:
    void fail_some();
    void answer_otherwise();
    void close_way();
    void set_clock();
    void sleep();

    Machine& m_;
};

}  // namespace ghost::simulation
