// How a stream's end counts.
#pragma once

#include "agent/cli/errors.hpp"
#include "agent/cli/relay.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace ghost::cli {

// Nothing when it ended as it should. `what`: "the console of web", as sentences name it.
[[nodiscard]] std::optional<Failure> failure_of_stream(const RelayEnd& end, std::string_view what);

}  // namespace ghost::cli
