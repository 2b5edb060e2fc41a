// The command line: words in, an Invocation out.
#pragma once

#include "agent/cli/exit_code.hpp"
#include "agent/cli/invocation.hpp"
#include "base/error.hpp"

#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::cli {

// What a command line refers to, as a seam.
struct Surroundings {
    std::function<std::optional<std::string>(std::string_view name)> environment;
    // Errors: io_error, not_found, body_too_large; each names the path.
    std::function<base::Result<std::string>(const std::string& path)> read_file;
    std::function<std::string(const std::string& path)> absolute;
    std::function<bool(const std::string& path)> is_folder = [](const std::string&) { return false; };
    std::string program = {};  // the absolute path of ghostctl; empty: nobody knows
};
// `called`: the program's name, as it was started.
[[nodiscard]] Surroundings process_surroundings(std::string_view called);
inline constexpr std::size_t largest_file = 1024 * 1024;  // bytes; a request's body can't be larger either

// Nothing to carry out: help or a version was asked for (done), or the words make no sense (usage).
struct Told {
    ExitCode code;
    std::string out;    // for standard output
    std::string error;  // for standard error
};

// `words` without the program's name.
[[nodiscard]] std::expected<Invocation, Told> parse(std::vector<std::string> words, const Surroundings& surroundings);

}  // namespace ghost::cli
