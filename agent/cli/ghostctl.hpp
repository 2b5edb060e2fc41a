// The command-line client. `ghost-agent` called as `ghostctl` ends up here.
#pragma once

namespace ghost::cli {

// Returns the process's exit status (exit_code.hpp). Ignores SIGPIPE and handles SIGINT and SIGTERM from here on.
[[nodiscard]] int run(int argc, char** argv);

}  // namespace ghost::cli
