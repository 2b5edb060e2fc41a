// What the stand-in for Core knows, for people.
#include "tests/fakes/fake_core.hpp"

#include <boost/json/array.hpp>

#include <chrono>
#include <utility>

namespace ghost::fakes {
namespace {

namespace json = boost::json;

constexpr std::size_t most_in_page = 100;

template <class Items>
json::array array_of(const Items& items) {
    json::array all;
    for (const auto& item : items) all.emplace_back(item);
    return all;
}

// The last `most_in_page` of `items`, each as `show` makes it.
template <class Items, class Show>
json::array last_of(const Items& items, Show show) {
    json::array all;
    const auto from = items.size() > most_in_page ? items.size() - most_in_page : 0;
    for (auto i = from; i < items.size(); ++i) all.push_back(show(items[i]));
    return all;
}

json::value time_or_null(const std::optional<base::Wall>& time) {
    if (!time) return nullptr;
    return json::value(base::rfc3339_ms(*time));
}

}  // namespace

json::object FakeCore::page() const {
    json::object agents;
    for (const auto& [id, agent] : agents_) {
        json::array vms;
        for (const auto& [vm_id, vm] : agent.vms) vms.emplace_back(vm);
        json::object reasons;
        for (const auto& [reason, count] : agent.reasons) reasons[reason] = count;
        const auto age = agent.last_beat ? std::chrono::duration<double>{clock_.now() - *agent.last_beat}.count() : 0.0;
        agents[id] = json::object{{"name", agent.name},
                                  {"install_id", agent.install_id},
                                  {"version", agent.version},
                                  {"presence", presence(agent)},
                                  {"epoch", agent.epoch},
                                  {"boot_id", agent.boot_id},
                                  {"session_id", agent.session_id},
                                  {"seq", agent.seq},
                                  {"rev", agent.rev},
                                  {"state_rev", agent.state_rev},
                                  {"beats", agent.beats},
                                  {"full_syncs", agent.full_syncs},
                                  {"reasons", std::move(reasons)},
                                  {"last_beat", time_or_null(agent.last_beat_wall)},
                                  {"last_beat_age_s", agent.last_beat ? json::value(age) : json::value(nullptr)},
                                  {"last_beat_bytes", agent.last_beat_bytes},
                                  {"clock_ahead_ms", agent.clock_ahead.count()},
                                  {"certificate_expires", time_or_null(agent.certificate_expires)},
                                  {"certificates", agent.certificates},
                                  {"told_to_leave", agent.told_to_leave},
                                  {"facts_ack_rev", agent.ack_rev},
                                  {"features", array_of(agent.features)},
                                  {"conditions", array_of(agent.conditions)},
                                  {"resources", agent.resources},
                                  {"addresses", agent.addresses},
                                  {"vms", std::move(vms)}};
    }
    return {{"time", base::rfc3339_ms(clock_.wall())},
            {"requests", requests_},
            {"agents", std::move(agents)},
            {"commands", last_of(commands_, [](const Command& command) { return show(command); })},
            {"facts", last_of(facts_,
                              [](const Fact& fact) {
                                  return json::object{{"agent_id", fact.agent_id}, {"fact", fact.fact.told}};
                              })},
            {"violations", array_of(violations_)},
            {"faults", to_json(faults)}};
}

json::object show(const FakeCore::Command& command) {
    return {{"id", command.id},
            {"agent_id", command.agent_id},
            {"command", command.command},
            {"queued", base::rfc3339_ms(command.queued)},
            {"delivered", command.delivered},
            {"acks", array_of(command.acks)},
            {"state", command.state.empty() ? json::value(nullptr) : json::value(command.state)},
            {"operation", command.operation.empty() ? json::value(nullptr) : json::value(command.operation)},
            {"problem", command.problem ? json::value(*command.problem) : json::value(nullptr)},
            {"told", command.told.empty() ? json::value(nullptr) : json::value(command.told)}};
}

}  // namespace ghost::fakes
