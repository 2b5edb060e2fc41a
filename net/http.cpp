#include "net/http.hpp"

#include "net/text.hpp"

#include <algorithm>
#include <array>

namespace ghost::net {
namespace {

constexpr std::size_t target_limit = 8 * 1024;
constexpr std::size_t query_limit = 128;  // parameters

constexpr std::array<std::pair<Method, std::string_view>, 7> method_names{{{Method::get, "GET"},
                                                                           {Method::head, "HEAD"},
                                                                           {Method::post, "POST"},
                                                                           {Method::put, "PUT"},
                                                                           {Method::patch, "PATCH"},
                                                                           {Method::del, "DELETE"},
                                                                           {Method::options, "OPTIONS"}}};

std::optional<unsigned> hex_value(char c) noexcept {
    if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
    if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
    if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
    return std::nullopt;
}

// "http://host/x?y" -> "/x?y"; clients that think they speak to a proxy send it.
std::optional<std::string> origin_form(std::string_view target) {
    for (const std::string_view scheme : {"http://", "https://"}) {
        if (!same_token(target.substr(0, scheme.size()), scheme)) continue;
        const auto rest = target.substr(scheme.size());
        const auto end = rest.find_first_of("/?");
        if (end == 0 || rest.empty()) return std::nullopt;
        if (end == std::string_view::npos) return "/";
        return rest[end] == '?' ? "/" + std::string{rest.substr(end)} : std::string{rest.substr(end)};
    }
    return std::nullopt;
}

std::optional<std::string> decode_text(std::string_view text, bool plus_is_space) {
    auto decoded = percent_decode(text, plus_is_space);
    if (decoded && !is_utf8(*decoded)) return std::nullopt;
    return decoded;
}

std::optional<Query> parse_query(std::string_view text) {
    Query query;
    while (!text.empty()) {
        const auto end = text.find('&');
        const auto item = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
        if (item.empty()) continue;
        if (query.size() == query_limit) return std::nullopt;
        const auto equals = item.find('=');
        auto name = decode_text(item.substr(0, equals), true);
        auto value = decode_text(equals == std::string_view::npos ? std::string_view{} : item.substr(equals + 1), true);
        if (!name || !value) return std::nullopt;
        query.emplace_back(std::move(*name), std::move(*value));
    }
    return query;
}

}  // namespace

std::string_view name_of(Method method) noexcept {
    for (const auto& [value, name] : method_names) {
        if (value == method) return name;
    }
    return "OTHER";
}

Method method_from_name(std::string_view name) noexcept {
    for (const auto& [value, text] : method_names) {
        if (text == name) return value;
    }
    return Method::other;
}

void Headers::set(std::string_view name, std::string value) {
    const auto same = [name](const auto& item) { return same_token(item.first, name); };
    const auto first = std::ranges::find_if(items_, same);
    if (first == items_.end()) return add(name, std::move(value));
    first->second = std::move(value);
    items_.erase(std::remove_if(std::next(first), items_.end(), same), items_.end());
}

void Headers::add(std::string_view name, std::string value) { items_.emplace_back(name, std::move(value)); }

std::optional<std::string_view> Headers::find(std::string_view name) const noexcept {
    for (const auto& [key, value] : items_) {
        if (same_token(key, name)) return value;
    }
    return std::nullopt;
}

std::optional<std::string_view> Request::query_value(std::string_view name) const noexcept {
    for (const auto& [key, value] : query) {
        if (key == name) return value;
    }
    return std::nullopt;
}

std::optional<Target> parse_target(std::string_view target) {
    if (target.empty() || target.size() > target_limit) return std::nullopt;
    if (target == "*") return Target{"*", {}};
    if (target.front() != '/') {
        const auto origin = origin_form(target);
        return origin ? parse_target(*origin) : std::nullopt;
    }
    target = target.substr(0, target.find('#'));
    const auto question = target.find('?');
    const auto path = target.substr(0, question);
    if (!decode_text(path, false)) return std::nullopt;
    auto query = parse_query(question == std::string_view::npos ? std::string_view{} : target.substr(question + 1));
    if (!query) return std::nullopt;
    return Target{std::string{path}, std::move(*query)};
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\0') return std::nullopt;
        if (text[i] == '+' && plus_is_space) {
            out += ' ';
        } else if (text[i] != '%') {
            out += text[i];
        } else {
            if (text.size() - i < 3) return std::nullopt;
            const auto high = hex_value(text[i + 1]);
            const auto low = hex_value(text[i + 2]);
            if (!high || !low || (*high == 0 && *low == 0)) return std::nullopt;
            out += static_cast<char>(*high << 4U | *low);
            i += 2;
        }
    }
    return out;
}

std::string percent_encode(std::string_view text) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    std::string out;
    out.reserve(text.size());
    for (const char c : text) {
        const bool unreserved = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                                c == '-' || c == '.' || c == '_' || c == '~';
        if (unreserved) {
            out += c;
            continue;
        }
        const auto byte = static_cast<unsigned char>(c);
        out += '%';
        out += digits[byte >> 4U];
        out += digits[byte & 15U];
    }
    return out;
}

}  // namespace ghost::net
