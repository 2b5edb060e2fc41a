#include "agent/cli/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace ghost::cli {
namespace {

struct Rune {
    char32_t code = 0;
    std::size_t bytes = 1;
    bool valid = false;
};

// The first character of non-empty UTF-8; what isn't UTF-8 is one invalid byte.
Rune first_rune(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text.front());
    if (lead < 0x80) return {lead, 1, true};
    const std::size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || text.size() < bytes) return {lead, 1, false};
    char32_t code = lead & (0xffU >> (bytes + 1));
    for (std::size_t i = 1; i < bytes; ++i) {
        const auto next = static_cast<unsigned char>(text[i]);
        if ((next & 0xc0U) != 0x80U) return {lead, 1, false};
        code = (code << 6U) | (next & 0x3fU);
    }
    constexpr std::array<char32_t, 5> smallest{0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    if (code < smallest.at(bytes) || surrogate || code > 0x10ffff) return {lead, 1, false};
    return {code, bytes, true};
}

bool drives_terminal(char32_t c) {
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x61c || (c >= 0x200e && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

struct Range {
    char32_t first;
    char32_t last;
};
bool within(const auto& ranges, char32_t c) {
    return std::ranges::any_of(ranges, [c](const Range& r) { return c >= r.first && c <= r.last; });
}

std::size_t width_of(char32_t c) {
    static constexpr std::array none{Range{0x300, 0x36f},   Range{0x1ab0, 0x1aff}, Range{0x20d0, 0x20ff},
                                     Range{0x200b, 0x200d}, Range{0xfe00, 0xfe0f}, Range{0xfe20, 0xfe2f}};
    static constexpr std::array two{Range{0x1100, 0x115f},   Range{0x2e80, 0x303e},   Range{0x3041, 0xa4cf},
                                    Range{0xac00, 0xd7a3},   Range{0xf900, 0xfaff},   Range{0xfe30, 0xfe6f},
                                    Range{0xff00, 0xff60},   Range{0xffe0, 0xffe6},   Range{0x1f300, 0x1f64f},
                                    Range{0x1f680, 0x1f6ff}, Range{0x1f900, 0x1f9ff}, Range{0x20000, 0x3fffd}};
    if (within(none, c)) return 0;
    return within(two, c) ? 2 : 1;
}

// Digits, at most nine, at the front of `text`, which loses them.
std::optional<std::int64_t> take_number(std::string_view& text) {
    std::int64_t value = 0;
    std::size_t digits = 0;
    while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') {
        if (digits == 9) return std::nullopt;
        value = value * 10 + (text[digits++] - '0');
    }
    if (digits == 0) return std::nullopt;
    text.remove_prefix(digits);
    return value;
}

}  // namespace

std::string printable(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const auto rune = first_rune(text);
        const auto code = static_cast<std::uint32_t>(rune.code);
        if (rune.valid && !drives_terminal(rune.code))
            out += text.substr(0, rune.bytes);
        else if (rune.code == '\n')
            out += "\\n";
        else if (rune.code == '\t')
            out += "\\t";
        else
            out += code > 0xff ? fmt::format("\\u{:04x}", code) : fmt::format("\\x{:02x}", code);
        text.remove_prefix(rune.bytes);
    }
    return out;
}

std::string printable_json(std::string_view json) {
    std::string out;
    out.reserve(json.size());
    while (!json.empty()) {
        const auto rune = first_rune(json);
        // Below 0x20 a serialiser has escaped what is within strings; what is left is the layout.
        if (rune.valid && (rune.code < 0x20 || !drives_terminal(rune.code)))
            out += json.substr(0, rune.bytes);
        else
            out += fmt::format("\\u{:04x}", static_cast<std::uint32_t>(rune.code));
        json.remove_prefix(rune.bytes);
    }
    return out;
}

std::size_t columns_of(std::string_view text) {
    std::size_t columns = 0;
    while (!text.empty()) {
        const auto rune = first_rune(text);
        columns += rune.valid ? width_of(rune.code) : 1;
        text.remove_prefix(rune.bytes);
    }
    return columns;
}

std::string_view fitting(std::string_view text, std::size_t columns) {
    std::size_t used = 0;
    std::size_t bytes = 0;
    while (bytes < text.size()) {
        const auto rune = first_rune(text.substr(bytes));
        used += rune.valid ? width_of(rune.code) : 1;
        if (used > columns) break;
        bytes += rune.bytes;
    }
    return text.substr(0, bytes);
}

std::optional<std::chrono::seconds> parse_duration(std::string_view text) {
    constexpr std::int64_t most = 7LL * 86'400;
    std::int64_t total = 0;
    std::int64_t last_unit = most + 1;
    if (text.empty()) return std::nullopt;
    while (!text.empty()) {
        const auto number = take_number(text);
        if (!number) return std::nullopt;
        std::int64_t unit = 1;
        if (text.empty()) {
            if (last_unit <= most) return std::nullopt;  // "1h30": of what?
        } else {
            switch (text.front()) {
                case 's': unit = 1; break;
                case 'm': unit = 60; break;
                case 'h': unit = 3600; break;
                case 'd': unit = 86'400; break;
                default: return std::nullopt;
            }
            text.remove_prefix(1);
        }
        if (unit >= last_unit) return std::nullopt;
        last_unit = unit;
        total += *number * unit;
        if (total > most) return std::nullopt;
    }
    return total > 0 ? std::optional{std::chrono::seconds{total}} : std::nullopt;
}

std::optional<std::uint64_t> parse_mib(std::string_view text) {
    const auto whole = take_number(text);
    if (!whole) return std::nullopt;
    double value = static_cast<double>(*whole);
    if (text.starts_with('.')) {
        text.remove_prefix(1);
        const auto before = text.size();
        const auto fraction = take_number(text);
        if (!fraction) return std::nullopt;
        value += static_cast<double>(*fraction) / std::pow(10.0, static_cast<double>(before - text.size()));
    }
    double mib = 0;
    if (text.empty() || text == "G" || text == "Gi" || text == "GiB")
        mib = value * 1024;
    else if (text == "M" || text == "Mi" || text == "MiB")
        mib = value;
    else if (text == "T" || text == "Ti" || text == "TiB")
        mib = value * 1024 * 1024;
    else
        return std::nullopt;
    // Doubles this size hold every whole number; a decimal fraction of a MiB is a slip, not a wish.
    if (mib < 1 || mib > std::exp2(40) || std::abs(mib - std::round(mib)) > 1e-6) return std::nullopt;
    return static_cast<std::uint64_t>(std::llround(mib));
}

std::optional<std::uint64_t> parse_gib(std::string_view text) {
    const auto mib = parse_mib(text);
    return mib && *mib % 1024 == 0 ? std::optional{*mib / 1024} : std::nullopt;
}

std::optional<base::Wall> parse_time(std::string_view text) {
    const auto time = base::wall_from_rfc3339(text);
    return time ? std::optional<base::Wall>{std::chrono::floor<std::chrono::seconds>(*time)} : std::nullopt;
}

std::string human_number(double number) {
    if (!std::isfinite(number)) return "?";
    auto text = fmt::format("{:.2f}", number);
    text.erase(text.find_last_not_of('0') + 1);
    if (text.ends_with('.')) text.pop_back();
    return text;
}

std::string human_bytes(double bytes) {
    constexpr std::array<std::string_view, 7> units{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    std::size_t unit = 0;
    while (bytes >= 1024 && unit + 1 < units.size()) {
        bytes /= 1024;
        ++unit;
    }
    // Three digits say enough, and a progress line doesn't jump.
    const auto rounded = bytes >= 100 ? std::round(bytes) : std::round(bytes * 10) / 10;
    return fmt::format("{} {}", human_number(rounded), units.at(unit));
}

std::string human_mib(double mib) { return human_bytes(mib * 1024 * 1024); }

std::string human_span(std::chrono::seconds span) {
    const auto s = std::max<std::int64_t>(0, span.count());
    if (s < 60) return fmt::format("{}s", s);
    if (s < 3600) return fmt::format("{}m", s / 60);
    if (s < 86'400)
        return s / 60 % 60 == 0 ? fmt::format("{}h", s / 3600) : fmt::format("{}h {}m", s / 3600, s / 60 % 60);
    return fmt::format("{}d", s / 86'400);
}

std::string human_seconds(double seconds) {
    constexpr double most = 1e12;
    return std::isfinite(seconds) ? human_span(std::chrono::seconds{std::llround(std::clamp(seconds, 0.0, most))})
                                  : "?";
}

std::string age(std::string_view text, base::Wall now) {
    const auto then = parse_time(text);
    if (!then) return printable(text);
    return human_span(std::chrono::duration_cast<std::chrono::seconds>(now - *then));
}

}  // namespace ghost::cli
