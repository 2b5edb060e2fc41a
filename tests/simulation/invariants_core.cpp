// What Ghost Core was promised.
#include "simulation/invariants.hpp"

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <map>
#include <string_view>

namespace ghost::simulation {
namespace json = boost::json;
namespace {

constexpr std::string_view by_core = "core:ghost-core";

std::string_view text(const json::object& object, std::string_view member) {
    const auto* const found = object.if_contains(member);
    return found != nullptr && found->is_string() ? std::string_view{found->get_string()} : std::string_view{};
}

json::object as_core_has_it(const json::object& vm) {
    const auto& status = vm.at("status").as_object();
    const auto& spec = vm.at("spec").as_object();
    return {{"id", vm.at("id")},
            {"name", vm.at("name")},
            {"owner", vm.at("owner")},
            {"generation", vm.at("generation")},
            {"power", status.at("power")},
            {"phase", status.at("phase")},
            {"addresses", status.at("addresses")},
            {"vcpus", spec.at("vcpus")},
            {"memory_mib", spec.at("memory_mib")},
            {"disk_gib", spec.at("disk_gib")}};
}

}  // namespace

void Inspection::commands_were_done_once() {
    std::map<std::string_view, const json::object*> begun_by;
    for (const auto& [id, operation] : by_id_) {
        if (text(*operation, "requested_by") != by_core) continue;
        if (!s_.ordering.orders().contains(text(*operation, "request_id")))
            trace_.violated("operation {} is of a command that Core never gave", id);
        if (!begun_by.emplace(text(*operation, "request_id"), operation).second)
            trace_.violated("command {} began two operations", text(*operation, "request_id"));
    }
    for (const auto& command : s_.machine.core.commands()) {
        const auto& order = s_.ordering.orders().find(command.id)->second;
        if (!command.ended()) trace_.violated("command {} is {} when all is quiet", command.id, command.state);
        const auto found = begun_by.find(command.id);
        const auto* const begun = found == begun_by.end() ? nullptr : found->second;
        const auto end = begun == nullptr ? std::string_view{} : text(*begun, "state");
        if (!order.in_vain.empty() && command.state != "rejected")
            trace_.violated("command {} is {}, and was {}", command.id, command.state, order.in_vain);
        // A sync that failed may have been done.
        if (command.state == "rejected" && begun != nullptr && !s_.faults.of_syncs())
            trace_.violated("command {} was rejected and began {}", command.id, text(*begun, "id"));
        if ((command.state == "succeeded") != (end == "succeeded") && command.state != "rejected")
            trace_.violated("command {} has {}, and its operation \"{}\"", command.id, command.state, end);
        if (command.state == "failed" && begun == nullptr)
            trace_.violated("command {} has failed, and began nothing", command.id);
        if (begun != nullptr && command.state != "rejected") {
            if (command.operation != text(*begun, "id"))
                trace_.violated("command {} was said to be operation {}, and is {}", command.id, command.operation,
                                text(*begun, "id"));
            if (order.kind != text(*begun, "kind"))
                trace_.violated("command {} was {}, and its operation is {}", command.id, order.kind,
                                text(*begun, "kind"));
        }
        if (command.told != command.state)
            trace_.violated("command {} is {}, and its result was told as \"{}\"", command.id, command.state,
                            command.told);
    }
}

void Inspection::core_sees_what_is() {
    const auto& seen = *s_.machine.core.agent(Machine::agent_id);
    std::size_t managed = 0;
    for (const auto& item : vms_) {
        const auto& vm = item.as_object();
        if (!vm.at("managed").as_bool()) continue;
        ++managed;
        const std::string id{text(vm, "id")};
        const auto known = seen.vms.find(id);
        const auto now = as_core_has_it(vm);
        if (known == seen.vms.end())
            trace_.violated("Core doesn't see VM {}", id);
        else if (known->second != now)
            trace_.violated("Core sees VM {} as\n{}\nand it is\n{}", id, json::serialize(known->second),
                            json::serialize(now));
    }
    if (seen.vms.size() > managed) trace_.violated("Core sees {} VMs, and there are {}", seen.vms.size(), managed);
    const auto answer = s_.machine.get("/v1/resources");
    if (!answer || answer->status != 200) return trace_.violated("/v1/resources doesn't answer");
    const auto shown = json::parse(answer->body);
    for (const auto* pool : {"cpus", "memory_mib", "disk_bytes"}) {
        const auto is = shown.at(pool).at("allocated").to_number<double>();
        const auto told = seen.resources.at(pool).at("allocated").to_number<double>();
        if (is != told) trace_.violated("Core sees {} of {} allocated, and {} are", told, pool, is);
    }
}

void Inspection::facts_tell_what_happened() {
    std::map<std::string, std::string_view, std::less<>> told;  // operation -> kind of fact
    std::map<std::string_view, std::string_view> last;          // VM -> likewise
    for (const auto& [agent, fact] : s_.machine.core.facts()) {
        if (fact.result) continue;
        const std::string operation{text(fact.told, "operation")};
        if (!told.emplace(operation, fact.kind).second) trace_.violated("the end of {} was told twice", operation);
        const auto [at, first] = last.emplace(fact.vm_id, fact.kind);
        if (!first && at->second == fact.kind) trace_.violated("{} of {} was told twice", fact.kind, fact.vm_id);
        at->second = fact.kind;
    }
    for (const auto& [id, operation] : by_id_) {
        const auto kind = text(*operation, "kind");
        const bool makes = kind == "vm.create" || kind == "vm.adopt";
        const bool is_told = (makes || kind == "vm.delete") && text(*operation, "state") == "succeeded";
        const auto fact = told.find(id);
        const auto as = fact == told.end() ? std::string_view{} : fact->second;
        const auto ought = !is_told ? std::string_view{} : makes ? std::string_view{"vm.created"} : "vm.deleted";
        if (as != ought) trace_.violated("{} {} was told as \"{}\" and not as \"{}\"", kind, id, as, ought);
    }
}

}  // namespace ghost::simulation
