#include "agent/core/core_node.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace ghost::agent {
namespace json = boost::json;
namespace {

constexpr std::size_t longest_message = 160;  // bytes: beats are small
constexpr std::size_t most_addresses = 16;

// Core's names for our checks. What isn't here is the agent's own business.
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> condition_types{{{"libvirt", "HypervisorReady"},
                                                                                        {"network", "NetworkReady"},
                                                                                        {"storage", "StorageReady"},
                                                                                        {"state", "StateReady"},
                                                                                        {"tailnet", "TailnetReady"},
                                                                                        {"loop", "LoopReady"}}};

std::string shortened(std::string_view text) {
    if (text.size() <= longest_message) return std::string{text};
    auto end = longest_message;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;  // not within a character
    return std::string{text.substr(0, end)} + "...";
}

}  // namespace

json::object CoreNode::about() const { return {{"name", s_.name}, {"version", s_.version}}; }

json::object CoreNode::addresses() const {
    json::object out;
    if (auto address = s_.tailscale_ip(); !address.empty()) out["tailscale_ip"] = std::move(address);
    json::array local;
    for (const auto& address : s_.local_addresses ? s_.local_addresses() : std::vector<std::string>{}) {
        if (local.size() == most_addresses) break;
        local.emplace_back(address);
    }
    out["local"] = std::move(local);
    return out;
}

// Only what isn't as it should be, so that a beat of a node that is well stays small.
json::array CoreNode::conditions() const {
    json::array out;
    const auto report = s_.health.report(true);
    for (const auto& check : report.document.at("checks").as_object()) {
        const std::string_view name = check.key();
        const auto* const type = std::ranges::find(condition_types, name, [](const auto& pair) { return pair.first; });
        const auto& shown = check.value().as_object();
        if (type == condition_types.end() || shown.at("status").as_string() == "up") continue;
        json::object condition{
            {"type", type->second}, {"status", "false"}, {"reason", shown.at("status")}, {"since", shown.at("since")}};
        if (const auto* reason = shown.if_contains("reason"))
            condition["message"] = shortened(std::string_view{reason->as_string()});
        out.push_back(std::move(condition));
    }
    if (const auto state = s_.drain(); state.is_object()) {
        const auto* drain = &state.get_object();
        json::object condition{
            {"type", "Draining"}, {"status", "true"}, {"reason", "drained"}, {"since", drain->at("since")}};
        if (const auto* reason = drain->if_contains("reason");
            reason != nullptr && reason->is_string() && !reason->get_string().empty())
            condition["message"] = shortened(std::string_view{reason->get_string()});
        out.push_back(std::move(condition));
    }
    return out;
}

json::object vm_for_core(const Vm& vm) {
    return {{"id", vm.id},
            {"name", vm.name},
            {"owner", vm.owner},
            {"generation", vm.generation},
            {"power", virt::name_of(vm.observed.power)},
            {"phase", name_of(vm.phase)},
            {"addresses", json::array(vm.observed.addresses.begin(), vm.observed.addresses.end())},
            {"vcpus", vm.spec.vcpus},
            {"memory_mib", vm.spec.memory_mib},
            {"disk_gib", vm.spec.disk_gib}};
}

json::object vm_in_fact(const Vm& vm) { return {{"id", vm.id}, {"name", vm.name}, {"owner", vm.owner}}; }

}  // namespace ghost::agent
