// What the text of an option says. One that makes no sense is a usage fault that names the option.
#pragma once

#include <CLI/App.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace ghost::cli {

// "key=value"; the key isn't empty. `form`: how the fault calls what was expected.
[[nodiscard]] std::pair<std::string, std::string> key_and_value(std::string_view option, const std::string& text,
                                                                std::string_view form);
// Whole GiB.
[[nodiscard]] std::uint64_t gib_of(std::string_view option, const std::string& text);

// Memory, said in either of two ways. Must outlive the parsing.
struct MemoryWords {
    std::string ram;
    std::optional<std::int64_t> memory_mib;  // signed: CLI11 reads "-1" as a huge unsigned number

    // MiB; empty when nothing was said.
    [[nodiscard]] std::optional<std::int64_t> mib() const;
};

void add_vcpus(CLI::App& command, std::optional<std::int64_t>& vcpus, const char* help);
void add_memory(CLI::App& command, MemoryWords& words);

}  // namespace ghost::cli
