#include "agent/cli/ghostctl.hpp"
#include "agent/config/config_loader.hpp"
#include "agent/daemon.hpp"
#include "agent/enroll_command.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>

using namespace ghost;

namespace {

std::optional<agent::Config> read_config(const agent::ConfigSources& sources) {
    auto config = agent::load_config(sources);
    if (config) return std::move(*config);
    for (const auto& sentence : config.error().sentences) fmt::print(stderr, "ghost-agent: {}\n", sentence);
    return std::nullopt;
}

int run_agent(int argc, char** argv) {
    if (argc > 1 && argv[1] == std::string_view{"enroll"})
        return agent::run_enroll({argv + 2, argv + argc},
                                 {std::cin, std::cout, std::cerr, agent::process_environment()});
    CLI::App options{"ghost-agent, the VM daemon of Ghost Cloud"};
    std::string file;
    bool check = false;
    auto* const config_file =
        options.add_option("--config", file, "configuration file (default: /etc/ghost/agent.yaml, if it is there)");
    options.add_flag("--check-config", check, "print the configuration in effect, or its faults, and exit");
    options.footer("ghost-agent enroll --help tells how to join Ghost Core.");
    options.set_version_flag("--version", std::string{"ghost-agent "} + GHOST_VERSION);
    try {
        options.parse(argc, argv);
    } catch (const CLI::ParseError& told) {  // also what --help and --version print
        return options.exit(told) == 0 ? agent::exit_ok : agent::exit_usage;
    }

    if (config_file->count() > 0 && file.empty()) {  // "$UNSET": not the defaults
        fmt::print(stderr, "ghost-agent: --config: expected the name of a file, got nothing\n");
        return agent::exit_usage;
    }

    agent::ConfigSources sources;
    if (!file.empty()) sources.file = file;
    sources.environment = agent::process_environment();
    const auto config = read_config(sources);
    if (!config) return agent::exit_config;
    if (check) {
        fmt::print("{}\n", agent::print_config(*config));
        return agent::exit_ok;
    }
    return agent::run_daemon(*config, [&sources] { return read_config(sources); });
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const auto name = std::filesystem::path{argc > 0 ? argv[0] : ""}.filename();
        return name == "ghostctl" ? cli::run(argc, argv) : run_agent(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        return agent::exit_failure;
    }
}
