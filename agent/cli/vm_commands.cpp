#include "agent/cli/commands.hpp"
#include "agent/cli/text.hpp"

#include <CLI/CLI.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

namespace ghost::cli {
namespace {

struct Verb {
    const char* name;
    const char* done;
    const char* help;
};
constexpr Verb plain_verbs[] = {
    {"start", "started", "Switch it on"},
    {"pause", "paused", "Freeze it; it stays in memory"},
    {"resume", "resumed", "Let a paused one go on"},
    {"suspend", "suspended", "Save its memory to disk and switch it off"},
    {"reset", "reset", "Press its reset button: the guest isn't asked"},
};

// What the options of one command are read into; kept alive by its callback.
struct VmWords {
    std::string name;
    Waiting waiting;
    bool force = false;
    std::string grace;
    bool yes = false;
};

Change change_of(const VmWords& words, std::string_view verb, std::string_view done) {
    auto target = target_of("vms", words.name);
    if (!verb.empty()) target += fmt::format("/{}", verb);
    return change_of({View::vm, std::move(target), words.name}, done, words.waiting);
}

CLI::App& add_vm_command(CLI::App& vm, const char* name, const char* help, VmWords& words) {
    auto& command = *vm.add_subcommand(name, help);
    command.add_option("name", words.name, "Name or id of the VM")->required()->type_name("NAME");
    return command;
}

void add_verb(CLI::App& vm, Grammar grammar, const Verb& verb) {
    auto words = std::make_shared<VmWords>();
    auto& command = add_vm_command(vm, verb.name, verb.help, *words);
    add_waiting(command, words->waiting);
    command.final_callback(
        [words, grammar, verb] { grammar.invocation.action = change_of(*words, verb.name, verb.done); });
}

constexpr std::chrono::seconds longest_grace = std::chrono::minutes{10};  // the agent's limit
constexpr std::chrono::seconds power_off_time{60};
constexpr Verb stopping_verbs[] = {
    {"stop", "stopped", "Ask the guest to shut down; power it off when it hasn't in time"},
    {"restart", "restarted", "Stop it, as stop does, and start it again"},
};

void add_stopping_verb(CLI::App& vm, Grammar grammar, const Verb& verb) {
    auto words = std::make_shared<VmWords>();
    auto& command = add_vm_command(vm, verb.name, verb.help, *words);
    command.add_flag("-f,--force", words->force, "Power off at once");
    command.add_option("--grace", words->grace, "How long the guest has to shut down [--timeout, or 30s]")
        ->type_name("TIME");
    add_waiting(command, words->waiting);
    const auto* const timeout = command.get_option("--timeout");
    command.footer("Who waits up to --timeout gives the guest that long, 10m at most, unless --grace says otherwise.");
    command.final_callback([words, grammar, verb, timeout] {
        boost::json::object body;
        if (words->force) body["force"] = true;
        if (!words->grace.empty()) {
            const auto grace = parse_duration(words->grace);
            if (!grace)
                usage_fault(fmt::format("--grace '{}': expected a time like 30s or 5m", printable(words->grace)));
            body["timeout_s"] = grace->count();
        } else if (timeout->count() > 0 && !words->force) {
            body["timeout_s"] = std::min(words->waiting.limit, longest_grace).count();
            words->waiting.limit += power_off_time;  // to see it powered off
        }
        auto change = change_of(*words, verb.name, verb.done);
        if (!body.empty()) change.body = boost::json::serialize(body);
        grammar.invocation.action = std::move(change);
    });
}

void add_delete(CLI::App& vm, Grammar grammar) {
    auto words = std::make_shared<VmWords>();
    auto& command = add_vm_command(vm, "delete", "Power it off and delete it with its disks", *words);
    command.add_flag("-y,--yes", words->yes, "Don't ask");
    add_waiting(command, words->waiting);
    command.footer(
        "On a terminal it asks first. Without one there is nobody to ask: then it deletes only with --yes\n"
        "and otherwise ends with status 2, nothing done.");
    command.final_callback([words, grammar] {
        auto change = change_of(*words, "", "deleted");
        change.method = net::Method::del;
        if (!words->yes) change.question = fmt::format("Delete VM {} and its disks?", words->name);
        grammar.invocation.action = std::move(change);
    });
}

void add_adopt(CLI::App& vm, Grammar grammar) {
    auto words = std::make_shared<VmWords>();
    auto new_name = std::make_shared<std::string>();
    auto& command = add_vm_command(vm, "adopt", "Manage a domain that others defined, as it is", *words);
    command.add_option("--name", *new_name, "What to call it from now on [its name]")->type_name("NEW");
    add_waiting(command, words->waiting);
    command.final_callback([words, new_name, grammar] {
        auto change = change_of(*words, "adopt", "adopted");
        boost::json::object body;
        if (!new_name->empty()) body["name"] = *new_name;
        change.body = boost::json::serialize(body);
        grammar.invocation.action = std::move(change);
    });
}

}  // namespace

void add_vm_commands(CLI::App& app, Grammar grammar) {
    auto& vm = *app.add_subcommand("vm", "Virtual machines");
    vm.require_subcommand(1);
    add_vm_list(vm, grammar);
    add_vm_create(vm, grammar);
    add_vm_update(vm, grammar);
    auto words = std::make_shared<VmWords>();
    auto& status = add_vm_command(vm, "status", "One VM: what was asked for and what is", *words);
    status.final_callback(
        [words, grammar] { grammar.invocation.action = ShowOne{target_of("vms", words->name), View::vm}; });
    for (const auto& verb : stopping_verbs) add_stopping_verb(vm, grammar, verb);
    for (const auto& verb : plain_verbs) add_verb(vm, grammar, verb);
    add_adopt(vm, grammar);
    add_delete(vm, grammar);
}

}  // namespace ghost::cli
