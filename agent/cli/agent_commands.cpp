#include "agent/cli/commands.hpp"

#include <CLI/CLI.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <memory>
#include <string>
#include <string_view>

namespace ghost::cli {
namespace {

struct DrainWords {
    std::string reason;
    Waiting waiting;
};

Change agent_change(std::string_view verb, std::string_view done, const Waiting& waiting) {
    auto change = change_of({View::agent, fmt::format("/v1/agent/{}", verb), {}}, done, waiting);
    change.subject = "agent";
    return change;
}

void add_drain(CLI::App& app, Grammar grammar) {
    auto& agent = *app.add_subcommand("agent", "The agent itself");
    agent.require_subcommand(1);
    auto words = std::make_shared<DrainWords>();
    auto& drain = *agent.add_subcommand("drain", "Take no new VMs until undrain, also after a restart");
    drain.add_option("--reason", words->reason, "Why; whoever is refused a VM is told")->type_name("TEXT");
    add_waiting(drain, words->waiting);
    drain.footer("VMs that are there can be started, stopped, changed and deleted as ever.");
    drain.final_callback([words, grammar] {
        auto change = agent_change("drain", "takes no new VMs", words->waiting);
        if (!words->reason.empty())
            change.body = boost::json::serialize(boost::json::object{{"reason", words->reason}});
        grammar.invocation.action = std::move(change);
    });
    auto ended = std::make_shared<Waiting>();
    auto& undrain = *agent.add_subcommand("undrain", "Take new VMs again");
    add_waiting(undrain, *ended);
    undrain.final_callback(
        [ended, grammar] { grammar.invocation.action = agent_change("undrain", "takes new VMs again", *ended); });
}

}  // namespace

void add_agent_commands(CLI::App& app, Grammar grammar) {
    app.add_subcommand("status", "How the agent, its hypervisor, its link to Ghost Core and its VMs are")
        ->final_callback([grammar] { grammar.invocation.action = ShowStatus{}; });
    app.add_subcommand("version", "Versions of ghostctl and of the agent")->final_callback([grammar] {
        grammar.invocation.action = ShowVersion{};
    });
    app.add_subcommand("resources", "What the node has, keeps back, has given away and has free")
        ->final_callback([grammar] {
            if (grammar.invocation.format == Format::name)
                usage_fault("resources have no names; use -o json, yaml or table");
            grammar.invocation.action = ShowOne{"/v1/resources", View::resources};
        });
    add_drain(app, grammar);
}

}  // namespace ghost::cli
