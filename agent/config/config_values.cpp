#include "agent/config/config_values.hpp"

#include <boost/asio/ip/address.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <system_error>

namespace ghost::agent {
namespace {

std::string lower(std::string_view text) {
    std::string out{text};
    std::ranges::transform(out, out.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return out;
}

// Takes the number that `text` starts with off its front.
std::optional<double> take_number(std::string_view& text) {
    // from_chars would also take "inf", "nan" and a sign.
    if (text.empty() || ((text.front() < '0' || text.front() > '9') && text.front() != '.')) return std::nullopt;
    double value = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
    if (ec != std::errc{}) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return value;
}

std::string_view take_letters(std::string_view& text) {
    const auto end = std::ranges::find_if(text, [](char c) { return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z'); });
    const auto letters = text.substr(0, static_cast<std::size_t>(end - text.begin()));
    text.remove_prefix(letters.size());
    return letters;
}

struct Unit {
    std::string_view name;
    double factor;
};

std::optional<double> factor_of(std::string_view name, auto const& units) {
    const auto it = std::ranges::find(units, name, &Unit::name);
    return it == std::end(units) ? std::nullopt : std::optional{it->factor};
}

constexpr double largest = 9e18;  // what fits both 64-bit types

}  // namespace

std::optional<double> parse_number(std::string_view text) {
    const bool negative = text.starts_with('-');
    if (negative) text.remove_prefix(1);
    const auto value = take_number(text);
    if (!value || !text.empty() || !std::isfinite(*value)) return std::nullopt;
    return negative ? -*value : *value;
}

std::optional<std::uint64_t> parse_whole(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

std::optional<bool> parse_flag(std::string_view text) {
    const auto word = lower(text);
    if (word == "true" || word == "yes" || word == "on") return true;
    if (word == "false" || word == "no" || word == "off") return false;
    return std::nullopt;
}

std::optional<std::chrono::milliseconds> parse_duration(std::string_view text, std::chrono::milliseconds bare) {
    static constexpr std::array units{Unit{"ms", 1},     Unit{"s", 1e3},     Unit{"m", 60e3},
                                      Unit{"h", 3600e3}, Unit{"d", 86400e3}, Unit{"w", 7 * 86400e3}};
    if (const auto number = parse_number(text); number && (bare.count() != 0 || *number == 0)) {
        const auto ms = *number * static_cast<double>(bare.count());
        if (*number < 0 || ms > largest) return std::nullopt;
        return std::chrono::milliseconds{std::llround(ms)};
    }
    if (text.empty()) return std::nullopt;
    double total = 0;
    while (!text.empty()) {
        const auto number = take_number(text);
        const auto factor = factor_of(take_letters(text), units);
        if (!number || !factor) return std::nullopt;
        total += *number * *factor;
    }
    if (total > largest) return std::nullopt;
    return std::chrono::milliseconds{std::llround(total)};
}

std::optional<std::uint64_t> parse_size(std::string_view text, std::uint64_t bare) {
    static constexpr std::array units{
        Unit{"b", 1},        Unit{"kb", 1e3},     Unit{"mb", 1e6},     Unit{"gb", 1e9},   Unit{"tb", 1e12},
        Unit{"k", 0x1p10},   Unit{"m", 0x1p20},   Unit{"g", 0x1p30},   Unit{"t", 0x1p40}, Unit{"kib", 0x1p10},
        Unit{"mib", 0x1p20}, Unit{"gib", 0x1p30}, Unit{"tib", 0x1p40},
    };
    const auto number = take_number(text);
    if (!number) return std::nullopt;
    while (text.starts_with(' ')) text.remove_prefix(1);
    std::optional<double> factor;
    if (text.empty()) {
        if (bare != 0 || *number == 0) factor = static_cast<double>(bare);
    } else {
        factor = factor_of(lower(take_letters(text)), units);
    }
    if (!factor || !text.empty() || *number * *factor > largest) return std::nullopt;
    return static_cast<std::uint64_t>(std::llround(*number * *factor));
}

std::optional<boost::asio::ip::tcp::endpoint> parse_listen_address(std::string_view text) {
    const auto colon = text.rfind(':');
    if (colon == std::string_view::npos) return std::nullopt;
    auto host = text.substr(0, colon);
    const auto port = parse_whole(text.substr(colon + 1));
    if (!port || *port > 65535) return std::nullopt;
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    boost::system::error_code ec;
    const auto address = boost::asio::ip::make_address(std::string{host}, ec);
    if (ec || address.is_v6() != bracketed) return std::nullopt;
    return boost::asio::ip::tcp::endpoint{address, static_cast<unsigned short>(*port)};
}

std::optional<std::uint16_t> parse_tailnet_port(std::string_view text) {
    constexpr std::string_view prefix = "tailscale:";
    if (!text.starts_with(prefix)) return std::nullopt;
    const auto port = parse_whole(text.substr(prefix.size()));
    if (!port || *port == 0 || *port > 65535) return std::nullopt;
    return static_cast<std::uint16_t>(*port);
}

}  // namespace ghost::agent
