// Identifiers: UUIDs of version 7 (RFC 9562), which sort by the time they were made, trace contexts and MACs.
#pragma once

#include "base/clock.hpp"
#include "base/random.hpp"

#include <string>
#include <string_view>

namespace ghost::base {

// 36 characters, lower case.
[[nodiscard]] std::string make_uuid(const Clock& clock, Random& random);
// Has the form of a UUID, of any version, in either case.
[[nodiscard]] bool is_uuid(std::string_view text) noexcept;

// The start of a trace as W3C Trace Context writes it, "00-<32 hex>-<16 hex>-00": not sampled, since we record no
// spans.
[[nodiscard]] std::string make_traceparent(Random& random);

// A locally administered unicast MAC in QEMU's range, "52:54:00:xx:xx:xx".
[[nodiscard]] std::string make_mac(Random& random);

}  // namespace ghost::base
