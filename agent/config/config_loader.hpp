// From files and environment to a Config that holds together, or to everything
// that is wrong with them.
#pragma once

#include "agent/config/config.hpp"

#include <expected>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ghost::agent {

struct ConfigSources {
    // --config: must exist. Without it `default_file` is read when it is there. Drop-ins stand beside either, in
    // agent.d/*.yaml for a file called agent.yaml, and are read in the order of their names.
    std::optional<std::filesystem::path> file;
    std::filesystem::path default_file = "/etc/ghost/agent.yaml";
    std::map<std::string, std::string> environment;
    // Whether certificates and keys are looked at: they must be there, and keys not be everybody's to read.
    bool check_files = true;
};

// Sentences such as `agent.yaml:12: resources.reserved_cpu: expected a number of at least 0, got "two"`, in the order
// of reading. Values of secrets are never among them.
struct ConfigFaults {
    std::vector<std::string> sentences;
};

// Reads files, so it belongs to the start or off the loop.
[[nodiscard]] std::expected<Config, ConfigFaults> load_config(const ConfigSources& sources);

// This process's environment, as load_config wants it.
[[nodiscard]] std::map<std::string, std::string> process_environment();

// The configuration in force as indented JSON, every key with its value, secrets as "(set)" or "".
[[nodiscard]] std::string print_config(const Config& config);

// The paths of the keys in which two configurations differ: what a reload changes.
[[nodiscard]] std::vector<std::string> changed_keys(const Config& before, const Config& after);

}  // namespace ghost::agent
