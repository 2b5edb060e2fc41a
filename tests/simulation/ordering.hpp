// Ghost Core's wishes: the commands that it has for the agent.
#pragma once

#include "simulation/clients.hpp"
#include "simulation/machine.hpp"

#include <boost/json/object.hpp>

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

namespace ghost::simulation {

struct Order {
    std::string kind;  // as of REST: "vm.create"
    bool off = false;  // of a VM that is to be off once it is made
    // Why nothing may come of it; empty: something may.
    std::string in_vain = {};
};

class Ordering {
public:
    Ordering(Machine& machine, Clients& clients) : m_(machine), clients_(clients) {}

    // A command or some, whether the agent is there or not.
    void act();
    // After all of them the node takes new VMs again.
    void open_again();

    [[nodiscard]] const std::map<std::string, Order, std::less<>>& orders() const noexcept { return orders_; }
    // That Core hasn't heard the end of.
    [[nodiscard]] std::size_t waiting() const;

private:
    void order();
    void queue(Order order, boost::json::object command);
    [[nodiscard]] boost::json::object make(std::string_view kind, Order& order);
    void add_conditions(Order& order, boost::json::object& command);
    void spoil(Order& order, boost::json::object& command);
    // Mostly one that is there, or that Core sees, by id or by name.
    [[nodiscard]] std::string choose_vm();

    Machine& m_;
    Clients& clients_;
    bool drained_ = false;
    std::map<std::string, Order, std::less<>> orders_;  // command id -> what was wanted
};

}  // namespace ghost::simulation
