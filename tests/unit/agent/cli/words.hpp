// What a command line says, in surroundings that a test makes.
#pragma once

#include "agent/cli/command_line.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace ghost::cli {

struct World {
    std::map<std::string, std::string, std::less<>> environment = {};
    std::map<std::string, std::string> files = {};
    std::set<std::string> folders = {};
    std::string program = {};  // ghostctl's path

    [[nodiscard]] std::expected<Invocation, Told> parse(std::vector<std::string> words) const {
        Surroundings surroundings;
        surroundings.environment = [this](std::string_view name) -> std::optional<std::string> {
            const auto it = environment.find(name);
            return it == environment.end() ? std::nullopt : std::optional{it->second};
        };
        surroundings.read_file = [this](const std::string& path) -> base::Result<std::string> {
            const auto it = files.find(path);
            if (it == files.end()) return base::fail(base::Errc::io_error, "cannot open " + path);
            return it->second;
        };
        surroundings.absolute = [](const std::string& path) { return path.starts_with('/') ? path : "/cwd/" + path; };
        surroundings.is_folder = [this](const std::string& path) { return folders.contains(path); };
        surroundings.program = program;
        return cli::parse(std::move(words), surroundings);
    }
};

inline Invocation understood(const std::vector<std::string>& words, const World& world = {}) {
    auto invocation = world.parse(words);
    if (!invocation) FAIL(invocation.error().error);
    return std::move(*invocation);
}

template <class Action>
Action action_of(const std::vector<std::string>& words, const World& world = {}) {
    auto invocation = understood(words, world);
    REQUIRE(std::holds_alternative<Action>(invocation.action));
    return std::get<Action>(std::move(invocation.action));
}

inline std::string usage_fault_of(const std::vector<std::string>& words, const World& world = {}) {
    const auto told = world.parse(words);
    REQUIRE_FALSE(told);
    CHECK(told.error().code == ExitCode::usage);
    CHECK(told.error().out.empty());
    return told.error().error;
}

inline boost::json::value body_of(const std::vector<std::string>& words, const World& world = {}) {
    return boost::json::parse(action_of<Change>(words, world).body);
}

}  // namespace ghost::cli
