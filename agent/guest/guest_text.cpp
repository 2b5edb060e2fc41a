#include "agent/guest/guest_text.hpp"

#include <algorithm>
#include <cstdint>
#include <initializer_list>

namespace ghost::agent {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";
constexpr std::string_view more = "...";

std::uint8_t byte_at(std::string_view text, std::size_t at) { return static_cast<std::uint8_t>(text[at]); }

struct Sequence {
    std::size_t length = 1;  // of the character, or of the bytes that are one fault together
    bool valid = false;
    bool ends_early = false;  // so far it might become a character
};

// The one that begins at `at` (Unicode 15, table 3-7; faults are told apart as its chapter 3.9 advises).
Sequence sequence_at(std::string_view text, std::size_t at) {
    const auto lead = byte_at(text, at);
    if (lead < 0x80) return {.length = 1, .valid = true};
    std::size_t length = 0;
    std::uint8_t low = 0x80;  // bounds of the second byte
    std::uint8_t high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) length = 2;
    if (lead >= 0xE0 && lead <= 0xEF) length = 3;
    if (lead >= 0xF0 && lead <= 0xF4) length = 4;
    if (length == 0) return {};
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
    for (std::size_t i = 1; i < length; ++i, low = 0x80, high = 0xBF) {
        if (at + i == text.size()) return {.length = i, .ends_early = true};
        const auto next = byte_at(text, at + i);
        if (next < low || next > high) return {.length = i};
    }
    return {.length = length, .valid = true};
}

bool is_plain(std::string_view argument) {
    return !argument.empty() && std::ranges::all_of(argument, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               std::string_view{"_-./:=,@%+"}.contains(c) || static_cast<std::uint8_t>(c) >= 0x80;
    });
}

}  // namespace

ReadableText readable_text(std::string_view bytes, std::size_t most, bool cut) {
    ReadableText out{.text = {}, .cut = cut};
    out.text.reserve(std::min(bytes.size(), most));
    for (std::size_t at = 0; at < bytes.size();) {
        const auto sequence = sequence_at(bytes, at);
        if (sequence.ends_early && cut) break;
        const auto next = sequence.valid ? bytes.substr(at, sequence.length) : replacement;
        if (out.text.size() + next.size() > most) {
            out.cut = true;
            break;
        }
        out.text += next;
        at += sequence.length;
    }
    return out;
}

std::string shortened(std::string_view utf8, std::size_t most) {
    if (utf8.size() <= most) return std::string{utf8};
    auto out = readable_text(utf8.substr(0, most - std::min(most, more.size())), most, true).text;
    return out += more;
}

std::string command_line(const std::vector<std::string>& argv, std::size_t most) {
    std::string line;
    for (const auto& argument : argv) {
        if (line.size() > most) break;
        if (!line.empty()) line += ' ';
        if (is_plain(argument)) {
            line += argument;
            continue;
        }
        line += '\'';
        for (const char c : argument) {
            if (line.size() > most) break;
            if (c == '\'')
                line += R"('\'')";
            else
                line += c;
        }
        line += '\'';
    }
    return shortened(line, most);
}

base::Error refusal_of_guest(base::Error said) {
    if (said.code != base::Errc::state_conflict) return said;
    const auto has = [&said](std::initializer_list<std::string_view> words) {
        return std::ranges::any_of(words, [&said](std::string_view word) { return said.detail.contains(word); });
    };
    if (has({"No such file", "Is a directory", "Not a directory"}))
        said.code = base::Errc::not_found;
    else if (has({"Permission denied", "Operation not permitted", "Read-only file system"}))
        said.code = base::Errc::forbidden;
    else if (has({"No space left", "Disk quota exceeded"}))
        said.code = base::Errc::insufficient_storage;
    return said;
}

}  // namespace ghost::agent
