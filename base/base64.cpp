#include "base/base64.hpp"

#include <algorithm>

namespace ghost::base {
namespace {

constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int bits_of(char c) noexcept {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+') return 62;
    return c == '/' ? 63 : -1;
}

}  // namespace

std::string to_base64(std::string_view bytes) {
    std::string out;
    out.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
        const auto group = bytes.substr(at, 3);
        unsigned held = 0;
        for (std::size_t i = 0; i < 3; ++i)
            held = (held << 8U) | (i < group.size() ? static_cast<unsigned char>(group[i]) : 0U);
        for (std::size_t i = 0; i < 4; ++i)
            out.push_back(i <= group.size() ? letters[(held >> (18U - 6U * i)) & 63U] : '=');
    }
    return out;
}

std::string to_base64url(std::string_view bytes) {
    auto out = to_base64(bytes);
    std::ranges::replace(out, '+', '-');
    std::ranges::replace(out, '/', '_');
    out.resize(std::min(out.find('='), out.size()));
    return out;
}

std::string from_base64(std::string_view text, std::size_t most) {
    std::string out;
    out.reserve(std::min(most, text.size() / 4 * 3 + 3));
    unsigned held = 0;
    unsigned bits = 0;
    for (const char c : text) {
        const int value = bits_of(c);
        if (value < 0 || out.size() >= most) break;
        held = ((held << 6U) | static_cast<unsigned>(value)) & 0xffffU;
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        out.push_back(static_cast<char>(static_cast<unsigned char>(held >> bits)));
    }
    return out;
}

}  // namespace ghost::base
