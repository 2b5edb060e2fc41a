#include "storage/checksum.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace ghost::storage {
namespace {

using base::Errc;
using base::Result;

constexpr std::string_view blanks = " \t\r\n";

std::string_view trimmed(std::string_view text) {
    const auto first = text.find_first_not_of(blanks);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

std::string lower(std::string_view text) {
    std::string out{text};
    std::ranges::transform(out, out.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    return out;
}

// By its length; MD5, SHA-1 and the like are none.
std::optional<Checksum> digest_of(std::string_view text) {
    const auto* const kind = text.size() == 64 ? "sha256" : text.size() == 128 ? "sha512" : nullptr;
    if (kind == nullptr) return std::nullopt;
    auto hex = lower(text);
    if (hex.find_first_not_of("0123456789abcdef") != std::string::npos) return std::nullopt;
    return Checksum{kind, std::move(hex)};
}

bool names(std::string_view listed, std::string_view name) {
    if (listed.starts_with('*')) listed.remove_prefix(1);
    return listed.substr(listed.rfind('/') + 1) == name;
}

// Of the line, if it is about `name`.
std::optional<Checksum> in_line(std::string_view line, std::string_view name) {
    if (line.starts_with("SHA256 (") || line.starts_with("SHA512 (")) {
        const auto close = line.rfind(')');
        const auto equals = line.find('=', close == std::string_view::npos ? line.size() : close);
        if (equals == std::string_view::npos || !names(line.substr(8, close - 8), name)) return std::nullopt;
        auto found = digest_of(trimmed(line.substr(equals + 1)));
        return found && found->kind == lower(line.substr(0, 6)) ? found : std::nullopt;
    }
    const auto blank = line.find_first_of(blanks);
    if (blank == std::string_view::npos || !names(trimmed(line.substr(blank)), name)) return std::nullopt;
    return digest_of(line.substr(0, blank));
}

}  // namespace

std::string to_string(const Checksum& checksum) { return checksum.kind + ":" + checksum.hex; }

Result<Checksum> parse_checksum(std::string_view text) {
    const auto colon = text.find(':');
    if (colon != std::string_view::npos) {
        auto digest = digest_of(text.substr(colon + 1));
        if (digest && digest->kind == lower(text.substr(0, colon))) return *std::move(digest);
    }
    return base::fail(Errc::validation_failed, "checksum: expected sha256:<64 hex digits> or sha512:<128 hex digits>");
}

Result<void> compare(const Checksum& expected, const Copied& copied) {
    const auto& actual = expected.kind == "sha512" ? copied.sha512 : copied.sha256;
    if (actual == expected.hex) return {};
    base::Error error{Errc::checksum_mismatch, "the image is not the one that the checksum names"};
    error.facts = {{"expected", to_string(expected)}, {"actual", expected.kind + ":" + actual}};
    return base::fail(std::move(error));
}

Result<Checksum> find_checksum(std::string_view list, std::string_view name) {
    if (auto lone = digest_of(trimmed(list))) return *std::move(lone);
    std::optional<Checksum> found;
    while (!list.empty()) {
        const auto end = std::min(list.find('\n'), list.size());
        auto here = in_line(trimmed(list.substr(0, end)), name);
        if (here && found && here->kind == found->kind && *here != *found)
            return base::fail(Errc::source_unavailable, fmt::format("the checksum list names {} twice", name));
        if (here && (!found || here->kind == "sha512")) found = std::move(here);
        list.remove_prefix(std::min(end + 1, list.size()));
    }
    if (!found) return base::fail(Errc::source_unavailable, fmt::format("the checksum list doesn't name {}", name));
    return *std::move(found);
}

}  // namespace ghost::storage
