#include "agent/cli/option_values.hpp"

#include "agent/cli/commands.hpp"
#include "agent/cli/text.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace ghost::cli {
namespace {

CLI::Range positive() { return CLI::Range(std::int64_t{1}, std::int64_t{1} << 40, "POSITIVE"); }

}  // namespace

std::pair<std::string, std::string> key_and_value(std::string_view option, const std::string& text,
                                                  std::string_view form) {
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
        usage_fault(fmt::format("{} '{}': expected {}", option, printable(text), form));
    return {text.substr(0, equals), text.substr(equals + 1)};
}

std::uint64_t gib_of(std::string_view option, const std::string& text) {
    const auto size = parse_gib(text);
    if (!size)
        usage_fault(fmt::format("{} '{}': expected a whole number of GiB, like 50 or 1T", option, printable(text)));
    return *size;
}

std::optional<std::int64_t> MemoryWords::mib() const {
    if (ram.empty()) return memory_mib;
    const auto size = parse_mib(ram);
    if (!size)
        usage_fault(
            fmt::format("--ram '{}': expected GiB, like 4 or 0.5, or a size like 512M, in whole MiB", printable(ram)));
    return static_cast<std::int64_t>(*size);
}

void add_vcpus(CLI::App& command, std::optional<std::int64_t>& vcpus, const char* help) {
    command.add_option("--vcpu,--vcpus", vcpus, help)->type_name("N")->check(positive());
}

void add_memory(CLI::App& command, MemoryWords& words) {
    auto* ram = command.add_option("--ram", words.ram, "Memory in GiB, or a size like 512M")->type_name("GIB");
    command.add_option("--memory-mib", words.memory_mib, "Memory in MiB")
        ->type_name("MIB")
        ->check(positive())
        ->excludes(ram);
}

}  // namespace ghost::cli
