// Text on its way to a terminal, and quantities as people write and read them.
#pragma once

#include "base/clock.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::cli {

// `text` with everything that could drive a terminal (control characters, also of C1; changes of writing direction;
// line separators) and everything that isn't UTF-8 written out as \n, \t, \x1b or \u202e.
[[nodiscard]] std::string printable(std::string_view text);

// JSON already serialised, with the characters of `printable` that JSON allows bare turned into \uXXXX.
[[nodiscard]] std::string printable_json(std::string_view json);

// Columns that printable text takes on a terminal: combining marks none, East Asian wide ones and emoji two.
[[nodiscard]] std::size_t columns_of(std::string_view text);
// The longest beginning of printable text that fits `columns`.
[[nodiscard]] std::string_view fitting(std::string_view text, std::size_t columns);

// "90", "90s", "5m", "1h30m", "2d": seconds, at least one, at most 7 days.
[[nodiscard]] std::optional<std::chrono::seconds> parse_duration(std::string_view text);
// "4" (GiB), "0.5", "512M", "4GiB", "1T": MiB, a whole number of at least one; at most 1 EiB.
[[nodiscard]] std::optional<std::uint64_t> parse_mib(std::string_view text);
// The same as whole GiB.
[[nodiscard]] std::optional<std::uint64_t> parse_gib(std::string_view text);
// RFC 3339 with "Z" or an offset; fractions are dropped.
[[nodiscard]] std::optional<base::Wall> parse_time(std::string_view text);

[[nodiscard]] std::string human_bytes(double bytes);              // "1.5 GiB"
[[nodiscard]] std::string human_mib(double mib);                  // "512 MiB", "2 GiB"
[[nodiscard]] std::string human_span(std::chrono::seconds span);  // "45s", "3m", "2h 5m", "4d"
[[nodiscard]] std::string human_seconds(double seconds);          // the same, whatever number it is
[[nodiscard]] std::string human_number(double number);            // "2", "0.5": at most two decimals
// How long before `now` the RFC 3339 time `text` was; `text` itself when it is none.
[[nodiscard]] std::string age(std::string_view text, base::Wall now);

}  // namespace ghost::cli
