// The subcommands. Each fills the Invocation when its words have been read.
#pragma once

#include "agent/cli/command_line.hpp"
#include "agent/cli/invocation.hpp"

#include <CLI/App.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::cli {

// What commands are built from; all outlive the parsing.
struct Grammar {
    Invocation& invocation;
    const Surroundings& surroundings;
    const std::optional<std::vector<std::string>>& tail;  // what followed "--", of exec and ssh
};

void add_vm_commands(CLI::App& app, Grammar grammar);
void add_vm_list(CLI::App& vm, Grammar grammar);
void add_vm_create(CLI::App& vm, Grammar grammar);
void add_vm_update(CLI::App& vm, Grammar grammar);
void add_access_commands(CLI::App& app, Grammar grammar);
void add_guest_commands(CLI::App& app, Grammar grammar);
void add_image_commands(CLI::App& app, Grammar grammar);
void add_operation_commands(CLI::App& app, Grammar grammar);
void add_events(CLI::App& app, Grammar grammar);
void add_orphan_commands(CLI::App& app, Grammar grammar);
void add_agent_commands(CLI::App& app, Grammar grammar);

// --timeout, and where it makes sense --no-wait. `waiting` must outlive the parsing.
void add_waiting(CLI::App& command, Waiting& waiting, bool with_no_wait = true);

// NAME, and what it says once it was read.
CLI::App& add_vm_name(CLI::App& command, std::string& name);
[[nodiscard]] VmRef vm_called(const std::string& name);

// "/v1/vms/" + `name`, encoded. An empty name is a usage fault.
[[nodiscard]] std::string target_of(std::string_view collection, const std::string& name);

// What a change is asked of: its path, and the name that its person knows it by.
struct Changed {
    View view;
    std::string target;
    std::string name;
};
// A POST without a body. `done`: "started", as a sentence about it ends when all went well.
[[nodiscard]] Change change_of(Changed what, std::string_view done, const Waiting& waiting);

// Ends the parsing with exit code 2 and this sentence.
[[noreturn]] void usage_fault(std::string sentence);

}  // namespace ghost::cli
