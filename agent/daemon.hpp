// The daemon as a process: the real seams, the loop, signals, the exit code.
#pragma once

#include "agent/config/config.hpp"

#include <expected>
#include <functional>
#include <optional>
#include <string>

namespace ghost::agent {

// Exit codes: a configuration fault as sysexits.h has it, a wrong command line as ghostctl does.
inline constexpr int exit_ok = 0;
inline constexpr int exit_failure = 1;
inline constexpr int exit_usage = 2;
inline constexpr int exit_config = 78;

// Reads the configuration again (SIGHUP); nullopt when it has faults, which it has reported.
using ReadConfig = std::function<std::optional<Config>()>;

// Runs until SIGTERM or SIGINT. Faults of the start are sentences on standard error and exit_config, but for a full
// disk, which passes: exit_failure.
[[nodiscard]] int run_daemon(const Config& config, const ReadConfig& read_again);

}  // namespace ghost::agent
