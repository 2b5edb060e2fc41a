// What must hold once everything is healed and quiet.
#pragma once

#include "simulation/clients.hpp"
#include "simulation/faults.hpp"
#include "simulation/machine.hpp"
#include "simulation/ordering.hpp"
#include "simulation/readers.hpp"
#include "simulation/surroundings.hpp"
#include "simulation/told.hpp"

#include <boost/json/array.hpp>

#include <list>
#include <map>
#include <string>

namespace ghost::simulation {

// All that a schedule is made of, and what it came to.
struct Scene {
    Machine& machine;
    const Clients& clients;
    const Ordering& ordering;
    const std::list<Reader>& readers;
    const Surroundings& surroundings;
    const Faults& faults;
    Told& told;
};

class Inspection {
public:
    // Of a machine that is up, well and quiet. What doesn't hold is told to the trace.
    explicit Inspection(const Scene& scene);
    void run();

private:
    [[nodiscard]] boost::json::array list(const std::string& what);

    // invariants_requests.cpp
    void operations_have_ended();
    void requests_were_done_once();
    void wanted_power_was_asked_for();

    // invariants_state.cpp
    void creates_and_deletes_are_whole();
    void vms_are_as_the_hypervisor_says();
    void files_have_owners();
    void memory_is_at_rest();
    void database_is_as_memory();

    // invariants_core.cpp
    void commands_were_done_once();
    void core_sees_what_is();
    void facts_tell_what_happened();

    void readers_know_all();
    void errors_are_explained();

    const Scene& s_;
    Trace& trace_;
    boost::json::array vms_;
    boost::json::array operations_;
    boost::json::array images_;
    std::map<std::string, const boost::json::object*, std::less<>> by_request_;  // request id -> operation
    std::map<std::string, const boost::json::object*, std::less<>> by_id_;
};

}  // namespace ghost::simulation
