// What is done within a VM, through its guest agent.
#include "agent/cli/commands.hpp"
#include "agent/cli/option_values.hpp"
#include "agent/cli/text.hpp"
#include "net/text.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::cli {
namespace {

constexpr const char* needs = "The VM needs guest access ('ghostctl vm update NAME --guest-access') and a guest agent.";

struct ExecWords {
    std::string name;
    std::string timeout;
    std::vector<std::string> environment;
    bool with_input = false;
};

ExecCommand exec_of(const ExecWords& words, const Grammar& grammar) {
    constexpr std::chrono::seconds longest = std::chrono::hours{1};  // the agent's limit
    constexpr std::size_t most_words = 256;
    ExecCommand action{vm_called(words.name), {}};
    if (!grammar.tail || grammar.tail->empty() || grammar.tail->front().empty())
        usage_fault("say what to run after --: ghostctl exec NAME -- COMMAND");
    action.command = *grammar.tail;
    if (action.command.size() > most_words) usage_fault(fmt::format("a command of more than {} words", most_words));
    action.environment.reserve(words.environment.size());
    for (const auto& text : words.environment) action.environment.push_back(key_and_value("--env", text, "NAME=VALUE"));
    const auto is_text = [](const std::string& word) { return net::is_utf8(word) && !word.contains('\0'); };
    if (!std::ranges::all_of(action.command, is_text) || !std::ranges::all_of(words.environment, is_text))
        usage_fault("the command and its environment have to be UTF-8");
    if (!words.timeout.empty()) {
        const auto limit = parse_duration(words.timeout);
        if (!limit || *limit > longest)
            usage_fault(
                fmt::format("--timeout '{}': expected a time like 90s or 5m, at most 1h", printable(words.timeout)));
        action.limit = *limit;
    }
    action.with_input = words.with_input;
    return action;
}

void add_exec(CLI::App& app, Grammar grammar) {
    auto words = std::make_shared<ExecWords>();
    auto& command =
        add_vm_name(*app.add_subcommand("exec", "Run a command in a VM: exec NAME -- COMMAND ..."), words->name);
    command.add_option("--timeout", words->timeout, "How long it may take [60s]")->type_name("TIME");
    command.add_option("--env", words->environment, "A variable of its environment; may be repeated")
        ->type_name("NAME=VALUE")
        ->allow_extra_args(false);
    command.add_flag("-i,--stdin", words->with_input, "Standard input, up to 64 KiB, is the command's");
    command.footer(
        fmt::format("It runs as root, without a shell and without a terminal. Its output is shown when it has ended,\n"
                    "64 KiB of each stream. The exit status is the command's.\n{}",
                    needs));
    command.final_callback([words, grammar] { grammar.invocation.action = exec_of(*words, grammar); });
}

struct CopyWords {
    std::string from;
    std::string to;
    bool recursive = false;
};

struct Side {
    std::string vm;  // empty: this machine's
    std::string path;
};

// As scp tells them apart: a colon before any slash.
Side side_of(const std::string& text) {
    const auto colon = text.find(':');
    if (colon == std::string::npos || colon == 0 || text.substr(0, colon).contains('/')) return {{}, text};
    return {text.substr(0, colon), text.substr(colon + 1)};
}

std::string last_part(const std::string& path) { return path.substr(path.rfind('/') + 1); }

CopyFile copy_of(const CopyWords& words, const Surroundings& surroundings) {
    if (words.recursive)
        usage_fault("cp copies one file; for a folder: tar cf - FOLDER | ghostctl ssh NAME -- tar xf -");
    const auto from = side_of(words.from);
    const auto to = side_of(words.to);
    if (from.vm.empty() == to.vm.empty())
        usage_fault("one of the two has to be in a VM, as NAME:/PATH, and the other on this machine");
    const bool to_guest = from.vm.empty();
    const auto& guest = to_guest ? to : from;
    auto path = guest.path;
    auto local = to_guest ? from.path : to.path;
    if (local.empty()) usage_fault("the name of a file can't be empty");
    if (!path.starts_with('/') || !net::is_utf8(path))
        usage_fault(fmt::format("'{}:{}': expected a path from the root, like {}:/tmp/file", printable(guest.vm),
                                printable(path), printable(guest.vm)));
    if (to_guest && path.ends_with('/')) {
        if (local == "-") usage_fault("standard input has no name; say that of the file in the VM");
        path += last_part(local);
    }
    if (path.ends_with('/')) usage_fault(fmt::format("'{}:{}' is a folder", printable(guest.vm), printable(path)));
    if (!to_guest && local != "-" && surroundings.is_folder(local))
        local += (local.ends_with('/') ? "" : "/") + last_part(path);
    return {vm_called(guest.vm), std::move(path), std::move(local), to_guest};
}

void add_cp(CLI::App& app, Grammar grammar) {
    auto words = std::make_shared<CopyWords>();
    auto& command = *app.add_subcommand("cp", "Copy a file into a VM or out of one");
    command.add_option("from", words->from, "What to copy: FILE, NAME:/FILE, or - for standard input")
        ->required()
        ->type_name("FROM");
    command.add_option("to", words->to, "Where to: NAME:/FILE, FILE or a folder, or - for standard output")
        ->required()
        ->type_name("TO");
    command.add_flag("-r,--recursive", words->recursive, "Not for folders: use tar and ssh");
    command.footer(
        fmt::format("A file is there once all of it is; half of one never is. At most 1 GiB, unless the agent's\n"
                    "guest_access.max_file_size says otherwise. {}",
                    needs));
    command.final_callback([words, grammar] { grammar.invocation.action = copy_of(*words, grammar.surroundings); });
}

}  // namespace

void add_guest_commands(CLI::App& app, Grammar grammar) {
    add_exec(app, grammar);
    add_cp(app, grammar);
}

}  // namespace ghost::cli
