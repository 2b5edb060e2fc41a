#include "agent/cli/commands.hpp"
#include "agent/cli/text.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <optional>

namespace ghost::cli {
namespace {

struct EventWords {
    std::optional<std::int64_t> after;  // signed: CLI11 reads "-1" as a huge unsigned number
    EventFilter filter;
};

}  // namespace

void add_events(CLI::App& app, Grammar grammar) {
    auto words = std::make_shared<EventWords>();
    auto& command = *app.add_subcommand("events", "Follow what happens, until Ctrl-C");
    command.add_option("--after", words->after, "Begin with what followed this event [with what happens now]")
        ->type_name("ID")
        ->check(CLI::Range(std::int64_t{0}, INT64_MAX).description(""));
    command.add_option("--type", words->filter.types, "Only events of these types")
        ->type_name("TYPE,...")
        ->delimiter(',')
        ->allow_extra_args(false);
    command.add_option("--subject", words->filter.subject, "Only of this VM, image or operation, and what works on it")
        ->type_name("NAME|ID");
    command.footer(
        fmt::format("Types: {}.\nWith -o json one event a line, as the agent tells it; its id is for --after.",
                    fmt::join(event_types, ", ")));
    command.final_callback([words, grammar] {
        for (const auto& type : words->filter.types)
            if (std::ranges::find(event_types, type) == event_types.end())
                usage_fault(
                    fmt::format("--type '{}': expected some of {}", printable(type), fmt::join(event_types, ", ")));
        if (grammar.invocation.format == Format::name) usage_fault("events have no names; use -o json, yaml or table");
        FollowEvents action{words->filter};
        if (words->after) action.after = std::to_string(*words->after);
        grammar.invocation.action = std::move(action);
    });
}

}  // namespace ghost::cli
