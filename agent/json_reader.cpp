#include "agent/json_reader.hpp"

#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/stream_parser.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <unordered_set>
#include <vector>

namespace ghost::agent {
namespace json = boost::json;
namespace {

constexpr std::size_t max_faults = 64;

std::string shorten(std::string text) {
    if (text.size() <= 60) return text;
    std::size_t end = 57;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0U) == 0x80U) --end;  // between UTF-8 characters
    return text.substr(0, end) + "...";
}

// Follows a well-formed text and notes the first member that stands twice in its object.
struct Members {
    static constexpr std::size_t max_object_size = static_cast<std::size_t>(-1);
    static constexpr std::size_t max_array_size = static_cast<std::size_t>(-1);
    static constexpr std::size_t max_key_size = static_cast<std::size_t>(-1);
    static constexpr std::size_t max_string_size = static_cast<std::size_t>(-1);
    using Ec = boost::system::error_code;
    using Text = json::string_view;

    bool on_object_begin(Ec&) {
        open.emplace_back();
        return true;
    }
    bool on_object_end(std::size_t, Ec&) {
        open.pop_back();
        return true;
    }
    bool on_key_part(Text part, std::size_t, Ec&) {
        key.append(part.data(), part.size());
        return true;
    }
    bool on_key(Text part, std::size_t, Ec&) {
        key.append(part.data(), part.size());
        if (!twice && !open.back().insert(key).second) twice = key;
        key.clear();
        return true;
    }
    bool on_document_begin(Ec&) { return true; }
    bool on_document_end(Ec&) { return true; }
    bool on_array_begin(Ec&) { return true; }
    bool on_array_end(std::size_t, Ec&) { return true; }
    bool on_string_part(Text, std::size_t, Ec&) { return true; }
    bool on_string(Text, std::size_t, Ec&) { return true; }
    bool on_number_part(Text, Ec&) { return true; }
    bool on_int64(std::int64_t, Text, Ec&) { return true; }
    bool on_uint64(std::uint64_t, Text, Ec&) { return true; }
    bool on_double(double, Text, Ec&) { return true; }
    bool on_bool(bool, Ec&) { return true; }
    bool on_null(Ec&) { return true; }
    bool on_comment_part(Text, Ec&) { return true; }
    bool on_comment(Text, Ec&) { return true; }

    std::vector<std::unordered_set<std::string>> open;
    std::string key;
    std::optional<std::string> twice;
};

}  // namespace

base::Result<void> check_members(std::string_view text) {
    json::basic_parser<Members> parser{json::parse_options{}};
    boost::system::error_code ec;
    parser.write_some(false, text.data(), text.size(), ec);
    const auto& twice = parser.handler().twice;
    if (!twice) return {};
    return base::fail(base::Errc::invalid_json,
                      fmt::format("the member \"{}\" stands twice in its object", shorten(*twice)));
}

base::Result<json::value> parse_json(std::string_view text, std::size_t max_depth) {
    json::parse_options options;
    options.max_depth = max_depth;
    json::stream_parser parser{{}, options};
    boost::system::error_code ec;
    const auto used = parser.write_some(text, ec);
    if (!ec && used < text.size()) ec = json::error::extra_data;
    if (!ec) parser.finish(ec);
    if (ec == json::error::too_deep)
        return base::fail(base::Errc::invalid_json, fmt::format("nested deeper than {} levels", max_depth));
    if (ec)
        return base::fail(base::Errc::invalid_json, fmt::format("not valid JSON at byte {}: {}", used, ec.message()));
    return parser.release();
}

std::string pointer_token(std::string_view key) {
    std::string out;
    for (const char c : key) {
        if (c == '~')
            out += "~0";
        else if (c == '/')
            out += "~1";
        else
            out += c;
    }
    return out;
}

std::string describe(const json::value& value) {
    switch (value.kind()) {
        case json::kind::null: return "null";
        case json::kind::bool_: return value.get_bool() ? "true" : "false";
        case json::kind::int64:
        case json::kind::uint64:
        case json::kind::double_: return "the number " + json::serialize(value);
        case json::kind::string: return shorten(json::serialize(value));
        case json::kind::array: return "an array";
        case json::kind::object: return "an object";
    }
    return "something else";
}

base::Error validation_error(std::vector<base::Fault> faults) {
    const auto count = faults.size();
    if (count > max_faults) faults.resize(max_faults);
    const auto& first = faults.front();
    auto detail = count == 1
                      ? (first.pointer.empty() ? first.detail : fmt::format("{}: {}", first.pointer, first.detail))
                      : fmt::format("{} faults in the request", count);
    return {base::Errc::validation_failed, std::move(detail), std::move(faults)};
}

std::string JsonReader::at(std::string_view key) const { return pointer_ + "/" + pointer_token(key); }

void JsonReader::fault(std::string_view key, std::string detail) { faults_.push_back({at(key), std::move(detail)}); }

const json::value* JsonReader::find(std::string_view key) {
    asked_.emplace(key);
    return object_.if_contains(key);
}

bool JsonReader::is_null(std::string_view key) {
    const auto* value = find(key);
    return value != nullptr && value->is_null();
}

std::optional<std::string> JsonReader::string(std::string_view key, std::size_t max_bytes) {
    const auto* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) {
        fault(key, "expected a string, got " + describe(*value));
        return std::nullopt;
    }
    if (value->get_string().size() > max_bytes) {
        fault(key, fmt::format("at most {} bytes, got {}", max_bytes, value->get_string().size()));
        return std::nullopt;
    }
    if (std::ranges::find(value->get_string(), '\0') != value->get_string().end()) {
        fault(key, "must not hold a NUL character");
        return std::nullopt;
    }
    return std::string{value->get_string()};
}

std::optional<bool> JsonReader::boolean(std::string_view key) {
    const auto* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (value->is_bool()) return value->get_bool();
    fault(key, "expected true or false, got " + describe(*value));
    return std::nullopt;
}

std::optional<std::uint64_t> JsonReader::integer(std::string_view key, std::uint64_t min, std::uint64_t max) {
    const auto* value = find(key);
    if (value == nullptr) return std::nullopt;
    std::optional<std::uint64_t> number;
    if (value->is_uint64()) number = value->get_uint64();
    if (value->is_int64() && value->get_int64() >= 0) number = static_cast<std::uint64_t>(value->get_int64());
    if (number && *number >= min && *number <= max) return number;
    fault(key, fmt::format("expected a whole number from {} to {}, got {}", min, max, describe(*value)));
    return std::nullopt;
}

std::optional<std::string> JsonReader::one_of(std::string_view key, std::initializer_list<std::string_view> allowed) {
    const auto* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (value->is_string() && std::ranges::find(allowed, std::string_view{value->get_string()}) != allowed.end())
        return std::string{value->get_string()};
    fault(key, fmt::format("expected one of {}, got {}", fmt::join(allowed, ", "), describe(*value)));
    return std::nullopt;
}

std::optional<std::vector<std::string>> JsonReader::strings(std::string_view key, std::size_t max_items,
                                                            std::size_t max_bytes) {
    const auto* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_array()) {
        fault(key, "expected an array of strings, got " + describe(*value));
        return std::nullopt;
    }
    const auto& array = value->get_array();
    if (array.size() > max_items) {
        fault(key, fmt::format("at most {} items, got {}", max_items, array.size()));
        return std::nullopt;
    }
    std::vector<std::string> out;
    for (std::size_t i = 0; i < array.size(); ++i) {
        if (array[i].is_string() && array[i].get_string().size() <= max_bytes) {
            out.emplace_back(array[i].get_string());
        } else {
            faults_.push_back(
                {fmt::format("{}/{}", at(key), i),
                 fmt::format("expected a string of at most {} bytes, got {}", max_bytes, describe(array[i]))});
        }
    }
    return out;
}

const json::object* JsonReader::object(std::string_view key) {
    const auto* value = find(key);
    if (value == nullptr) return nullptr;
    if (value->is_object()) return &value->get_object();
    fault(key, "expected an object, got " + describe(*value));
    return nullptr;
}

void JsonReader::require(std::string_view key) {
    if (find(key) == nullptr) fault(key, "is required");
}

void JsonReader::finish() {
    for (const auto& member : object_)
        if (!asked_.contains(member.key())) fault(member.key(), "is not known here");
}

base::Result<void> read_object(const json::value& document, const std::function<void(JsonReader&)>& read) {
    if (!document.is_object())
        return base::fail(validation_error({{"", "expected an object, got " + describe(document)}}));
    std::vector<base::Fault> faults;
    JsonReader reader{document.get_object(), "", faults};
    read(reader);
    reader.finish();
    if (!faults.empty()) return base::fail(validation_error(std::move(faults)));
    return {};
}

}  // namespace ghost::agent
