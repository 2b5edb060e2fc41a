// fork and exec, with everything a child must not inherit taken away. Used by ChildProcesses only.
#pragma once

#include "base/descriptor.hpp"
#include "base/error.hpp"
#include "base/process.hpp"

#include <sys/types.h>

namespace ghost::base {

struct Spawned {
    pid_t pid = -1;     // leader of its own process group; the caller kills and reaps it
    Descriptor pidfd;   // readable when it has ended
    Descriptor output;  // read ends
    Descriptor error;
    Descriptor failure;  // carries one int, an errno, when the program could not be executed; else only ends
};

// Starts `command` (its deadline and max_output are the caller's business). The environment is the agent's without
// GHOST_* and with LC_ALL=C.UTF-8. Errors: io_error, not_found (argv is empty).
[[nodiscard]] Result<Spawned> spawn(const Command& command);

}  // namespace ghost::base
