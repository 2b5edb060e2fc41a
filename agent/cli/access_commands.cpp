// Ways to a VM's console, ports and screen.
#include "agent/cli/commands.hpp"
#include "agent/cli/port_words.hpp"

#include <CLI/CLI.hpp>

#include <memory>
#include <string>
#include <vector>

namespace ghost::cli {
namespace {

struct ConsoleWords {
    std::string name;
    bool force = false;
    bool read_only = false;
};

void add_console(CLI::App& app, Grammar grammar) {
    auto words = std::make_shared<ConsoleWords>();
    auto& command =
        add_vm_name(*app.add_subcommand("console", "The serial console of a VM; Ctrl-] leaves it"), words->name);
    auto* force = command.add_flag("--force", words->force, "Write, though somebody else does; they only read then");
    command.add_flag("--read-only", words->read_only, "Only watch")->excludes(force);
    command.footer(
        "It begins with the last 64 KiB. Of several who have it open one writes, the first; the others read.\n"
        "With pipes in place of the terminal bytes go through as they are, until the VM stops.");
    command.final_callback([words, grammar] {
        grammar.invocation.action = OpenConsole{vm_called(words->name), words->force, words->read_only};
    });
}

struct ForwardWords {
    std::string name;
    std::vector<std::string> ports;
    std::string stdio;
};

void add_forward(CLI::App& app, Grammar grammar) {
    auto words = std::make_shared<ForwardWords>();
    auto& command = add_vm_name(
        *app.add_subcommand("forward", "Ports of this machine that lead to a VM's, until Ctrl-C"), words->name);
    auto* ports = command.add_option("ports", words->ports, "Where to listen [127.0.0.1] and the guest's port")
                      ->type_name("[ADDRESS:]HOST_PORT:GUEST_PORT");
    command
        .add_option("--stdio", words->stdio, "One connection to this port of the guest, on standard input and output")
        ->type_name("PORT")
        ->excludes(ports);
    command.footer(
        "HOST_PORT 0 is any that is free. The way goes through the agent: the guest needs no address that this\n"
        "machine reaches. For forwards that last: ghostctl vm update NAME --forward web=8080:80");
    command.final_callback([words, grammar] {
        auto vm = vm_called(words->name);
        if (!words->stdio.empty()) {
            grammar.invocation.action = ForwardStdio{std::move(vm), port_of("--stdio", words->stdio)};
            return;
        }
        if (words->ports.empty()) usage_fault("say which ports: ghostctl forward NAME 8080:80");
        ForwardPorts action{std::move(vm), {}};
        action.ports.reserve(words->ports.size());
        for (const auto& text : words->ports) action.ports.push_back(port_forward_of("forward", text));
        grammar.invocation.action = std::move(action);
    });
}

struct SshWords {
    std::string name;
    std::string user;
    bool print = false;
};

void add_ssh(CLI::App& app, Grammar grammar) {
    auto words = std::make_shared<SshWords>();
    auto& command = add_vm_name(*app.add_subcommand("ssh", "ssh to a VM, through the agent"), words->name);
    command.add_option("-l,--login", words->user, "The user to log in as [whom the VM was made for]")
        ->type_name("USER");
    command.add_flag("--print", words->print, "Only print the command that would be run");
    command.footer(
        "What follows -- goes to ssh, after the host: its options, then a command.\n"
        "  ghostctl ssh web -- -L 5432:localhost:5432      ghostctl ssh web -- uptime\n"
        "The guest's host keys are those that its guest agent told the agent. While none are known, the first is\n"
        "trusted and kept in ~/.config/ghost/known_hosts.");
    command.final_callback([words, grammar] {
        StartSsh action{vm_called(words->name)};
        action.user = words->user;
        action.print = words->print;
        if (grammar.tail) action.words = *grammar.tail;
        grammar.invocation.action = std::move(action);
    });
    auto keys_of = std::make_shared<std::string>();
    auto& keys =
        add_vm_name(*app.add_subcommand("ssh-host-keys", "A VM's host keys, for ssh's KnownHostsCommand"), *keys_of);
    keys.group("");
    keys.final_callback([keys_of, grammar] { grammar.invocation.action = ShowHostKeys{vm_called(*keys_of)}; });
}

struct ScreenWords {
    std::string name;
    std::string listen;
    std::string file = "-";
};

void add_vnc(CLI::App& app, Grammar grammar) {
    auto words = std::make_shared<ScreenWords>();
    auto& command = add_vm_name(*app.add_subcommand("vnc", "The screen of a VM, in a viewer"), words->name);
    command.add_option("--listen", words->listen, "Don't start a viewer; let one connect to this port")
        ->type_name("[127.0.0.1:]PORT");
    command.footer(
        "Starts remote-viewer or TigerVNC's vncviewer, and ends with it. Without a desktop, or a viewer, it says "
        "where\n"
        "one can connect, until Ctrl-C.");
    command.final_callback([words, grammar] {
        OpenScreen action{vm_called(words->name)};
        if (!words->listen.empty()) action.listen = loopback_of("--listen", words->listen);
        grammar.invocation.action = std::move(action);
    });
}

void add_screenshot(CLI::App& app, Grammar grammar) {
    auto words = std::make_shared<ScreenWords>();
    auto& command = add_vm_name(*app.add_subcommand("screenshot", "A picture of a VM's screen, as PNG"), words->name);
    command.add_option("-o,--output", words->file, "The file to write; -: standard output [-]")->type_name("FILE");
    command.final_callback([words, grammar] {
        if (words->file.empty()) usage_fault("-o: expected the name of a file");
        grammar.invocation.action = TakeScreenshot{vm_called(words->name), words->file};
    });
}

}  // namespace

void add_access_commands(CLI::App& app, Grammar grammar) {
    add_console(app, grammar);
    add_ssh(app, grammar);
    add_forward(app, grammar);
    add_vnc(app, grammar);
    add_screenshot(app, grammar);
}

}  // namespace ghost::cli
