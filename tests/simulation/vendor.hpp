// Who serves the image of the catalogue: two versions of it, at an address and at a mirror, and what goes wrong with
// them.
#pragma once

#include "simulation/machine.hpp"

#include <string>

namespace ghost::simulation {

class Vendor {
public:
    explicit Vendor(Machine& machine);

    // Another version under the same address, or a fault of the next answers.
    void act();
    // Whatever was wrong is no more.
    void mend();

private:
    void publish();
    void fail();

    Machine& m_;
    bool newer_ = false;
};

}  // namespace ghost::simulation
