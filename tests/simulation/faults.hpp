// What goes wrong in hypervisor, files and database, until all of it is healed.
#pragma once

#include "simulation/machine.hpp"

#include <array>
#include <string_view>

namespace ghost::simulation {

class Faults {
public:
    explicit Faults(Machine& machine) : m_(machine) {}

    // Something begins to go wrong, or ends.
    void act();
    // Calls take their time from now on.
    void slow_down();
    void heal();

    // Kinds that there were, for what they explain.
    [[nodiscard]] bool of_calls() const noexcept { return calls_; }
    [[nodiscard]] bool of_files() const noexcept { return files_; }
    [[nodiscard]] bool of_database() const noexcept { return database_; }
    // A sync of the database failed: what was reported as failed may still turn up.
    [[nodiscard]] bool of_syncs() const noexcept { return syncs_; }

private:
    void in_calls();
    void in_files();
    void in_database();

    Machine& m_;
    bool calls_ = false;
    bool files_ = false;
    bool database_ = false;
    bool syncs_ = false;
};

}  // namespace ghost::simulation
