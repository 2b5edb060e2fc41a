// What guests and people with virsh do beside the agent.
#pragma once

#include "simulation/machine.hpp"

#include <cstddef>
#include <set>
#include <string>

namespace ghost::simulation {

class Surroundings {
public:
    explicit Surroundings(Machine& machine) : m_(machine) {}

    void act();

    // Domains that others defined, also those that are gone by now.
    [[nodiscard]] bool defined_by_others(const std::string& uuid) const { return others_.contains(uuid); }
    // Domains that others undefined.
    [[nodiscard]] bool undefined_by_others(const std::string& uuid) const { return undefined_.contains(uuid); }

    // A file that looks like ours and was never; a purge may take it.
    [[nodiscard]] bool littered(const std::string& path) const { return litter_.contains(path); }

private:
    void define_one();
    void litter();

    Machine& m_;
    std::size_t made_ = 0;
    std::set<std::string> others_;
    std::set<std::string> undefined_;
    std::set<std::string> litter_;
};

}  // namespace ghost::simulation
