#include "agent/cli/commands.hpp"

#include <CLI/CLI.hpp>

#include <memory>

namespace ghost::cli {
namespace {

struct PurgeWords {
    bool yes = false;
    Waiting waiting;
};

void add_purge(CLI::App& orphans, Grammar grammar) {
    auto words = std::make_shared<PurgeWords>();
    auto& command = *orphans.add_subcommand("purge", "Delete them all; --dry-run only says which");
    command.add_flag("-y,--yes", words->yes, "Don't ask");
    add_waiting(command, words->waiting);
    command.footer("On a terminal it asks first. Elsewhere it purges only with --yes.");
    command.final_callback([words, grammar] {
        auto change = change_of({View::orphan, "/v1/orphans/purge", {}}, "purged", words->waiting);
        change.subject = "orphans";
        if (!words->yes) change.question = "Delete all orphans for good?";
        grammar.invocation.action = std::move(change);
    });
}

}  // namespace

void add_orphan_commands(CLI::App& app, Grammar grammar) {
    auto& orphans = *app.add_subcommand("orphans", "Files and domains of the agent's that belong to no VM any more");
    orphans.require_subcommand(1);
    orphans.add_subcommand("list", "All orphans, and why each is one")->final_callback([grammar] {
        grammar.invocation.action = ShowList{"/v1/orphans", View::orphan, false};
    });
    add_purge(orphans, grammar);
}

}  // namespace ghost::cli
