#include "agent/cli/event_lines.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/progress.hpp"
#include "agent/cli/text.hpp"
#include "agent/cli/views.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace ghost::cli {
namespace json = boost::json;
namespace {

std::string known_as(const json::object& resource) {
    const auto name = text_at(resource, "name");
    return name.empty() ? text_at(resource, "id") : name;
}

std::string vm_summary(std::string_view type, const json::object& vm) {
    const auto name = known_as(vm);
    if (type == "vm.deleted") return fmt::format("vm {} was deleted", name);
    const auto state = vm_state_and_addresses(vm);
    if (type == "vm.power") return fmt::format("vm {} is {}", name, state);
    return fmt::format("vm {} {}: {}", name, type == "vm.created" ? "is new" : "changed", state);
}

std::string guest_access_summary(const json::object& access) {
    const auto action = text_at(access, "action");
    const auto by = text_at(access, "by");
    const auto name = text_at(access, "name");
    auto result = text_at(access, "result");
    if (const auto* code = access.if_contains("exit_code"); code != nullptr && code->is_int64())
        result = fmt::format("exit code {}", code->get_int64());
    if (action == "exec") return fmt::format("{} ran {} in vm {}: {}", by, text_at(access, "command"), name, result);
    return fmt::format("{} {} {} in vm {}: {}", by, action == "file_read" ? "read" : "wrote", text_at(access, "path"),
                       name, result);
}

std::string progress_of(const json::object& operation) {
    const auto state = text_at(operation, "state");
    const auto why = text_at(operation, "error", "detail");
    if (is_finished(operation)) return why.empty() ? state : fmt::format("{}: {}", state, why);
    if (bool_at(operation, "stalled") != true)
        return why.empty() ? progress_text(operation) : fmt::format("{}: {}", progress_text(operation), why);
    const auto phase = text_at(operation, "progress", "phase");
    return fmt::format("{} (stalled)", phase.empty() ? state : phase);
}

std::string operation_summary(const json::object& operation) {
    return fmt::format("operation {} of {}: {}", text_at(operation, "kind"), known_as(part(operation, "target")),
                       progress_of(operation));
}

std::string agent_summary(const json::object& agent) {
    const auto connected = bool_at(part(agent, "hypervisor"), "connected") == true;
    auto text = fmt::format("agent {}: hypervisor {}", known_as(agent), connected ? "connected" : "not connected");
    if (const auto reason = text_at(agent, "hypervisor", "reason"); !reason.empty())
        text += fmt::format(" ({})", reason);
    if (const auto core = text_at(agent, "core", "state"); !core.empty()) text += fmt::format(", Ghost Core {}", core);
    if (object_at(agent, "drain") != nullptr) {
        const auto reason = text_at(agent, "drain", "reason");
        text += fmt::format(", drained{}", reason.empty() ? reason : fmt::format(" ({})", reason));
    }
    return text;
}

bool is_about(const json::object& event, std::string_view subject) {
    const auto path = text_at(event, "subject");
    const auto& data = part(event, "data");
    const auto& target = part(data, "target");
    return path == subject || path.substr(path.rfind('/') + 1) == subject || text_at(data, "id") == subject ||
           text_at(data, "name") == subject || text_at(target, "id") == subject || text_at(target, "name") == subject;
}

}  // namespace

bool EventFilter::accepts(const json::object& event) const {
    if (!types.empty() && std::ranges::find(types, text_at(event, "type")) == types.end()) return false;
    return subject.empty() || is_about(event, subject);
}

std::string summary_of(const json::object& event) {
    const auto type = text_at(event, "type");
    const auto& data = part(event, "data");
    if (type == "vm.guest_access") return guest_access_summary(data);
    if (type.starts_with("vm.")) return vm_summary(type, data);
    if (type.starts_with("operation.")) return operation_summary(data);
    if (type.starts_with("image.")) return fmt::format("image {} is {}", known_as(data), text_at(data, "state"));
    if (type.starts_with("agent.")) return agent_summary(data);
    return fmt::format("{} changed", text_at(event, "subject"));
}

std::string event_line(const json::object& event) {
    constexpr std::size_t type_columns = std::ranges::max(event_types, {}, &std::string_view::size).size();
    return fmt::format("{}  {:<{}}  {}\n", printable(text_at(event, "time")), printable(text_at(event, "type")),
                       type_columns, printable(summary_of(event)));
}

}  // namespace ghost::cli
