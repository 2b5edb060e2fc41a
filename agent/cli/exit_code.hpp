// What ghostctl's exit status tells a script.
#pragma once

#include <cstdint>

namespace ghost::cli {

enum class ExitCode : std::uint8_t {
    done = 0,
    failed = 1,     // the agent tried and failed, the wait was cut short, or the agent can't serve now
    usage = 2,      // the command line makes no sense; nothing was asked
    not_found = 3,  // no such VM, image or operation
    refused = 4,    // the agent understood and said no: 401, 403, 409, 412, 422, 429, 507, and 503 when drained
    no_agent = 5,   // nobody answered
};

[[nodiscard]] constexpr int to_int(ExitCode code) noexcept { return static_cast<int>(code); }

}  // namespace ghost::cli
