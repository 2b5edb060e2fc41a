#include "agent/cli/commands.hpp"

#include "agent/cli/text.hpp"
#include "net/http.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <utility>

namespace ghost::cli {
namespace {

std::string_view noun_of(View view) {
    switch (view) {
        case View::vm: return "VM";
        case View::image:
        case View::catalogue: return "image";
        case View::operation: return "operation";
        case View::orphan: return "orphan";
        case View::agent: return "agent";
        case View::resources: break;
    }
    return "resources";
}

}  // namespace

void usage_fault(std::string sentence) { throw CLI::ValidationError(std::move(sentence)); }

std::string target_of(std::string_view collection, const std::string& name) {
    if (name.empty()) usage_fault("a name can't be empty");
    return fmt::format("/v1/{}/{}", collection, net::percent_encode(name));
}

CLI::App& add_vm_name(CLI::App& command, std::string& name) {
    command.add_option("name", name, "Name or id of the VM")->required()->type_name("NAME");
    return command;
}

VmRef vm_called(const std::string& name) { return {target_of("vms", name), name}; }

void add_waiting(CLI::App& command, Waiting& waiting, bool with_no_wait) {
    command
        .add_option_function<std::string>(
            "--timeout",
            [&waiting](const std::string& text) {
                const auto limit = parse_duration(text);
                if (!limit)
                    usage_fault(fmt::format("--timeout '{}': expected a time like 90s, 5m or 1h30m, at most 7d",
                                            printable(text)));
                waiting.limit = *limit;
            },
            "How long to wait for the end [10m]; the operation itself goes on")
        ->type_name("TIME");
    if (with_no_wait)
        command.add_flag_callback(
            "--no-wait", [&waiting] { waiting.wait = false; },
            "Return as soon as the agent has accepted the operation");
}

Change change_of(Changed what, std::string_view done, const Waiting& waiting) {
    Change change;
    change.target = std::move(what.target);
    change.view = what.view;
    change.subject = fmt::format("{} {}", noun_of(what.view), what.name);
    change.done = done;
    change.waiting = waiting;
    return change;
}

}  // namespace ghost::cli
