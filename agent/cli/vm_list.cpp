#include "agent/cli/commands.hpp"
#include "agent/cli/option_values.hpp"

#include <CLI/CLI.hpp>

#include <memory>
#include <string>
#include <vector>

namespace ghost::cli {
namespace {

struct ListWords {
    std::vector<std::string> labels;
    VmFilter filter;
    bool managed = true;
    bool watch = false;
};

}  // namespace

void add_vm_list(CLI::App& vm, Grammar grammar) {
    auto words = std::make_shared<ListWords>();
    auto& command = *vm.add_subcommand("list", "All VMs, or those that fit every filter");
    command.add_option("-l,--label", words->labels, "With this label; may be repeated")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    command.add_option("--power", words->filter.power, "running, off, paused, suspended, crashed or unknown")
        ->type_name("STATE")
        ->check(CLI::IsMember({"running", "off", "paused", "suspended", "crashed", "unknown"}));
    command.add_option("--owner", words->filter.owner, "Of this owner")->type_name("OWNER");
    command.add_option("--name", words->filter.name, "Of this name")->type_name("NAME");
    auto* managed =
        command.add_flag("--managed,!--unmanaged", words->managed, "Only VMs the agent manages, or only others");
    command.add_flag("-w,--watch", words->watch, "Go on showing what changes, until Ctrl-C");
    command.footer(
        "With --watch the table is kept true on a terminal; elsewhere each row that changes is a line, and with\n"
        "-o json each VM.");
    command.final_callback([words, managed, grammar] {
        auto& filter = words->filter;
        for (const auto& label : words->labels) filter.labels.push_back(key_and_value("--label", label, "KEY=VALUE"));
        if (managed->count() > 0) filter.managed = words->managed;
        if (words->watch)
            grammar.invocation.action = WatchVms{filter};
        else
            grammar.invocation.action = ShowList{filter.target(), View::vm};
    });
}

}  // namespace ghost::cli
