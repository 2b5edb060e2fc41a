// Times as text: of clock.hpp.
#include "base/clock.hpp"

#include <fmt/chrono.h>

#include <chrono>
#include <cstddef>
#include <ctime>

namespace ghost::base {
namespace {

// Takes exactly `digits` decimal digits off the front.
std::optional<int> take_digits(std::string_view& text, std::size_t digits) {
    if (text.size() < digits) return std::nullopt;
    int value = 0;
    for (std::size_t i = 0; i < digits; ++i) {
        if (text[i] < '0' || text[i] > '9') return std::nullopt;
        value = value * 10 + (text[i] - '0');
    }
    text.remove_prefix(digits);
    return value;
}

bool take(std::string_view& text, std::string_view one_of) {
    if (text.empty() || one_of.find(text.front()) == std::string_view::npos) return false;
    text.remove_prefix(1);
    return true;
}

std::optional<std::chrono::milliseconds> take_fraction(std::string_view& text) {
    std::chrono::milliseconds ms{0};
    if (!take(text, ".")) return ms;
    int scale = 100;
    std::size_t digits = 0;
    for (; !text.empty() && text.front() >= '0' && text.front() <= '9'; text.remove_prefix(1), ++digits) {
        ms += std::chrono::milliseconds{(text.front() - '0') * scale};
        scale /= 10;
    }
    return digits > 0 ? std::optional{ms} : std::nullopt;
}

std::optional<std::chrono::minutes> take_offset(std::string_view& text) {
    if (take(text, "Zz")) return std::chrono::minutes{0};
    const bool west = !text.empty() && text.front() == '-';
    if (!take(text, "+-")) return std::nullopt;
    const auto hours = take_digits(text, 2);
    if (!hours || !take(text, ":")) return std::nullopt;
    const auto minutes = take_digits(text, 2);
    if (!minutes || *hours > 23 || *minutes > 59) return std::nullopt;
    const std::chrono::minutes offset{*hours * 60 + *minutes};
    return west ? -offset : offset;
}

}  // namespace

std::string rfc3339(Wall time) {
    return fmt::format("{:%FT%T}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(time)));
}

std::string rfc3339_ms(Wall time) {
    const auto ms = to_unix_ms(time);
    const auto part = ((ms % 1000) + 1000) % 1000;
    return fmt::format("{:%FT%T}.{:03}Z", fmt::gmtime(static_cast<std::time_t>((ms - part) / 1000)), part);
}

std::optional<Wall> wall_from_rfc3339(std::string_view text) {
    const auto year = take_digits(text, 4);
    if (!year || !take(text, "-")) return std::nullopt;
    const auto month = take_digits(text, 2);
    if (!month || !take(text, "-")) return std::nullopt;
    const auto day = take_digits(text, 2);
    if (!day || !take(text, "Tt")) return std::nullopt;
    const auto hour = take_digits(text, 2);
    if (!hour || !take(text, ":")) return std::nullopt;
    const auto minute = take_digits(text, 2);
    if (!minute || !take(text, ":")) return std::nullopt;
    const auto second = take_digits(text, 2);
    if (!second) return std::nullopt;
    const auto fraction = take_fraction(text);
    if (!fraction) return std::nullopt;
    const auto offset = take_offset(text);
    if (!offset || !text.empty()) return std::nullopt;
    const std::chrono::year_month_day date{std::chrono::year{*year}, std::chrono::month{static_cast<unsigned>(*month)},
                                           std::chrono::day{static_cast<unsigned>(*day)}};
    if (!date.ok() || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
    const auto whole = std::chrono::sys_time<std::chrono::seconds>{std::chrono::sys_days{date}} +
                       std::chrono::hours{*hour} + std::chrono::minutes{*minute} + std::chrono::seconds{*second} -
                       *offset;
    // What our clock can't tell is as far away as it can.
    using std::chrono::seconds;
    if (whole >= std::chrono::time_point_cast<seconds>(Wall::max())) return Wall::max();
    if (whole <= std::chrono::time_point_cast<seconds>(Wall::min())) return Wall::min();
    return Wall{whole} + *fraction;
}

}  // namespace ghost::base
