#include "agent/cli/commands.hpp"

#include <CLI/CLI.hpp>

#include <memory>

namespace ghost::cli {
namespace {

struct OperationWords {
    std::string id;
    Waiting waiting;
};

CLI::App& add_operation_command(CLI::App& operation, const char* name, const char* help, OperationWords& words) {
    auto& command = *operation.add_subcommand(name, help);
    command.add_option("id", words.id, "Id of the operation")->required()->type_name("ID");
    return command;
}

}  // namespace

void add_operation_commands(CLI::App& app, Grammar grammar) {
    auto& operation = *app.add_subcommand("operation", "Changes: under way, and those of the last days");
    operation.require_subcommand(1);
    operation.add_subcommand("list", "All operations the agent remembers")->final_callback([grammar] {
        grammar.invocation.action = ShowList{"/v1/operations", View::operation};
    });

    auto shown = std::make_shared<OperationWords>();
    add_operation_command(operation, "show", "One operation", *shown).final_callback([shown, grammar] {
        grammar.invocation.action = ShowOne{target_of("operations", shown->id), View::operation};
    });

    auto awaited = std::make_shared<OperationWords>();
    auto& wait = add_operation_command(operation, "wait", "Wait for its end, and end as it does", *awaited);
    add_waiting(wait, awaited->waiting, false);
    wait.final_callback([awaited, grammar] {
        if (awaited->id.empty()) usage_fault("an id can't be empty");
        grammar.invocation.action = WaitForOperation{awaited->id, awaited->waiting};
    });

    auto ended = std::make_shared<OperationWords>();
    auto& cancel = add_operation_command(operation, "cancel", "Ask it to stop and undo what it did", *ended);
    add_waiting(cancel, ended->waiting);
    cancel.final_callback([ended, grammar] {
        auto change = change_of({View::operation, target_of("operations", ended->id) + "/cancel", ended->id},
                                "cancelled", ended->waiting);
        change.ends_cancelled = true;
        grammar.invocation.action = std::move(change);
    });
}

}  // namespace ghost::cli
