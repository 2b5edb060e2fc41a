#include "simulation/ordering.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>
#include <vector>

namespace ghost::simulation {
namespace json = boost::json;
namespace {

constexpr std::array kinds{Weighted{"create", 22}, Weighted{"delete", 9}, Weighted{"start", 9},
                           Weighted{"stop", 8},    Weighted{"force", 7},  Weighted{"restart", 6},
                           Weighted{"pause", 7},   Weighted{"resume", 6}, Weighted{"suspend", 7},
                           Weighted{"image", 4},   Weighted{"drain", 2},  Weighted{"undrain", 2}};

bool has_older_name(std::string_view kind) {
    return kind == "vm.create" || kind == "vm.delete" || kind == "vm.start" || kind == "vm.stop";
}

}  // namespace

void Ordering::act() {
    // Some at once now and then, so that they wait for each other.
    for (auto left = m_.dice.percent(25) ? m_.dice.between(2, 6) : 1; left > 0; --left) order();
}

void Ordering::open_again() {
    if (!drained_) return;
    drained_ = false;
    queue({.kind = "agent.undrain"}, {{"kind", "agent.undrain"}});
}

std::size_t Ordering::waiting() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(m_.core.commands(), [](const auto& c) { return !c.ended(); }));
}

void Ordering::order() {
    auto& dice = m_.dice;
    Order order;
    auto command = make(drained_ && dice.percent(50) ? "undrain" : dice.pick_weighted(kinds), order);
    add_conditions(order, command);
    if (dice.percent(6)) spoil(order, command);
    queue(std::move(order), std::move(command));
}

void Ordering::queue(Order order, json::object command) {
    const auto id = fmt::format("c{}", orders_.size() + 1);
    command["id"] = id;
    m_.trace("Core wants {}{}{}", json::serialize(command), order.in_vain.empty() ? "" : ", in vain: ", order.in_vain);
    orders_.emplace(id, std::move(order));
    m_.core.queue(Machine::agent_id, std::move(command));
}

json::object Ordering::make(std::string_view kind, Order& order) {
    auto& dice = m_.dice;
    json::object command;
    if (kind == "create") {
        order.kind = "vm.create";
        auto body = json::parse(clients_.create_body()).as_object();
        const auto& spec = body.at("spec").as_object();
        order.off = spec.contains("power") && spec.at("power") == "off";
        command["params"] = std::move(body);
    } else if (kind == "image") {
        order.kind = "image.add";
        const auto name = dice.pick(Clients::images);
        if (dice.percent(30))
            command["params"] = {{"source", Machine::vendors_image}};
        else
            command["params"] = {{"name", name},
                                 {"source", fmt::format("file:///images/{}.qcow2", name == "small" ? name : "tiny")}};
    } else if (kind == "drain" || kind == "undrain") {
        order.kind = fmt::format("agent.{}", kind);
        drained_ = kind == "drain";
        if (drained_ && dice.percent(50)) command["params"] = {{"reason", "a new kernel"}};
    } else {
        order.kind = fmt::format("vm.{}", kind == "force" ? "stop" : kind);
        command["target"] = choose_vm();
        if (kind == "force")
            command["params"] = {{"force", true}};
        else if ((kind == "stop" || kind == "restart") && dice.percent(50))
            command["params"] = {{"timeout_s", dice.between(0, 20)}};
    }
    command["kind"] = order.kind;
    if (has_older_name(order.kind) && dice.percent(20)) command["kind"] = order.kind.substr(3) + "_vm";
    return command;
}

std::string Ordering::choose_vm() {
    auto& dice = m_.dice;
    std::vector<std::pair<std::string, std::string>> known;
    if (m_.state() == Machine::State::up && dice.percent(70)) {
        for (const auto& [id, vm] : m_.app().vms().all())
            if (vm.managed) known.emplace_back(id, vm.name);
    } else {
        for (const auto& [id, vm] : m_.core.agent(Machine::agent_id)->vms)
            known.emplace_back(id, vm.at("name").as_string());
    }
    if (known.empty() || dice.percent(15)) return std::string{dice.pick(Clients::names)};
    const auto& [id, name] = dice.pick(known);
    return dice.percent(50) ? id : name;
}

void Ordering::add_conditions(Order& order, json::object& command) {
    auto& dice = m_.dice;
    const auto* target = command.if_contains("target");
    if (target != nullptr && dice.percent(15)) {
        std::int64_t generation = 1'000'000;
        for (const auto& [id, vm] : m_.core.agent(Machine::agent_id)->vms)
            if ((id == target->as_string() || vm.at("name") == *target) && dice.percent(70))
                generation = vm.at("generation").to_number<std::int64_t>();
        if (generation == 1'000'000) order.in_vain = "of no generation";
        command["if_generation"] = generation;
    }
    if (dice.percent(12)) {
        const auto now = m_.clock.wall() + std::chrono::seconds{m_.core.faults.clock_off_s};
        // By whichever clock.
        const bool late = dice.percent(30);
        if (late) order.in_vain = "too late";
        command["not_after"] = late ? base::rfc3339(m_.clock.wall() - std::chrono::hours{5})
                                    : base::rfc3339(now + std::chrono::seconds{dice.between(1, 120)});
    }
    if (dice.percent(15)) command["deadline_s"] = dice.between(1, 60);
}

void Ordering::spoil(Order& order, json::object& command) {
    order.in_vain = "malformed";
    switch (m_.dice.below(9)) {
        case 0: command["kind"] = "vm.explode"; break;
        case 1: command.erase("kind"); break;
        case 2: command["params"] = "none"; break;
        case 3: command["target"] = 7; break;
        case 4: command["not_after"] = "tomorrow"; break;
        case 5: command["if_generation"] = -1; break;
        case 6: command["deadline_s"] = 0; break;
        case 7: command["colour"] = "red"; break;
        default: command = {{"kind", "vm.create"}, {"params", json::object{{"name", "No"}}}}; break;
    }
}

}  // namespace ghost::simulation
