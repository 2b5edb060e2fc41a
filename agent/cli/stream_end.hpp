// How a stream's end counts.
#pragma once

#include "agent/cli/errors.hpp"
#include "agent/cli/relay.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace ghost::cli {

// Why the agent closed a stream, of the codes that are its own.
enum class StreamClose : std::uint16_t {
    idle = 4000,
    vm_stopped = 4001,
    vm_deleted = 4002,
    guest_failed = 4003,
};

// Nothing when it ended as it should. `what`: "the console of web", as sentences name it.
[[nodiscard]] std::optional<Failure> failure_of_stream(const RelayEnd& end, std::string_view what);

}  // namespace ghost::cli
