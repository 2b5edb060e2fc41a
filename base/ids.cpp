#include "base/ids.hpp"

#include <fmt/format.h>

#include <array>
#include <cctype>

namespace ghost::base {

std::string make_uuid(const Clock& clock, Random& random) {
    std::array<std::byte, 10> entropy{};
    random.fill(entropy);
    const auto byte = [&entropy](std::size_t i) { return std::to_integer<unsigned>(entropy.at(i)); };
    const auto ms = static_cast<std::uint64_t>(to_unix_ms(clock.wall()));
    return fmt::format("{:08x}-{:04x}-7{:03x}-{:02x}{:02x}-{:02x}{:02x}{:02x}{:02x}{:02x}{:02x}",
                       (ms >> 16) & 0xffffffff, ms & 0xffff, ((byte(0) << 8) | byte(1)) & 0x0fff,
                       (byte(2) & 0x3f) | 0x80, byte(3), byte(4), byte(5), byte(6), byte(7), byte(8), byte(9));
}

bool is_uuid(std::string_view text) noexcept {
    if (text.size() != 36) return false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : std::isxdigit(static_cast<unsigned char>(text[i])) == 0) return false;
    }
    return true;
}

std::string make_traceparent(Random& random) {
    const auto high = random.next();
    const auto low = random.next() | 1U;  // all zero is no id
    const auto parent = random.next() | 1U;
    return fmt::format("00-{:016x}{:016x}-{:016x}-00", high, low, parent);
}

std::string make_mac(Random& random) {
    const auto bits = random.next();
    return fmt::format("52:54:00:{:02x}:{:02x}:{:02x}", bits & 0xff, (bits >> 8) & 0xff, (bits >> 16) & 0xff);
}

}  // namespace ghost::base
