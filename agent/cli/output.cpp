#include "agent/cli/output.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/text.hpp"
#include "agent/cli/views.hpp"

#include <boost/json/serialize.hpp>
#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <utility>

namespace ghost::cli {
namespace json = boost::json;
namespace {

// What isn't a container or a string. Boost writes 25.5 as 2.55E1, which people and YAML 1.1 read badly.
std::string scalar(const json::value& value) {
    if (!value.is_double()) return json::serialize(value);
    auto text = fmt::format("{}", value.get_double());
    if (const auto e = text.find('e'); e != std::string::npos && !text.contains('.')) text.insert(e, ".0");
    return text;
}

// `depth`: of the indentation; nullopt: all in one line.
void write_json(const json::value& value, std::optional<std::size_t> depth, std::string& out) {
    const auto inner = depth ? std::optional{*depth + 1} : std::nullopt;
    const auto new_line = [&out](std::optional<std::size_t> levels) {
        if (!levels) return;
        out += '\n';
        out.append(*levels * 2, ' ');
    };
    bool first = true;
    if (value.is_object() && !value.get_object().empty()) {
        out += '{';
        for (const auto& member : value.get_object()) {
            if (!std::exchange(first, false)) out += ',';
            new_line(inner);
            out += json::serialize(json::string_view{member.key()});
            out += depth ? ": " : ":";
            write_json(member.value(), inner, out);
        }
        new_line(depth);
        out += '}';
    } else if (value.is_array() && !value.get_array().empty()) {
        out += '[';
        for (const auto& item : value.get_array()) {
            if (!std::exchange(first, false)) out += ',';
            new_line(inner);
            write_json(item, inner, out);
        }
        new_line(depth);
        out += ']';
    } else {
        out += scalar(value);
    }
}

// Bare words that no YAML reader takes for anything but text.
bool is_plain_word(std::string_view text) {
    static constexpr std::array special{"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
    std::string lower{text};
    std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const auto letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; };
    return !text.empty() && letter(text.front()) && std::ranges::find(special, lower) == special.end() &&
           std::ranges::all_of(text, [](char c) {
               return std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string_view{"-_./"}.contains(c);
           });
}

void write_text(std::string_view text, YAML::Emitter& out) {
    out << (is_plain_word(text) ? YAML::Auto : YAML::DoubleQuoted) << std::string{text};
}

void write_yaml(const json::value& value, YAML::Emitter& out) {
    if (value.is_object()) {
        if (value.get_object().empty()) out << YAML::Flow;
        out << YAML::BeginMap;
        for (const auto& member : value.get_object()) {
            out << YAML::Key;
            write_text(member.key(), out);
            out << YAML::Value;
            write_yaml(member.value(), out);
        }
        out << YAML::EndMap;
    } else if (value.is_array()) {
        if (value.get_array().empty()) out << YAML::Flow;
        out << YAML::BeginSeq;
        for (const auto& item : value.get_array()) write_yaml(item, out);
        out << YAML::EndSeq;
    } else if (value.is_string()) {
        write_text(value.get_string(), out);
    } else if (value.is_bool()) {
        out << value.get_bool();
    } else if (value.is_null()) {
        out << YAML::Null;
    } else {
        out << scalar(value);
    }
}

}  // namespace

std::string to_json_text(const json::value& value) {
    std::string out;
    write_json(value, 0, out);
    return printable_json(out) + "\n";
}

std::string to_json_line(const json::value& value) {
    std::string out;
    write_json(value, std::nullopt, out);
    return printable_json(out) + "\n";
}

std::string to_yaml_text(const json::value& value) {
    YAML::Emitter out;
    out.SetNullFormat(YAML::LowerNull);
    write_yaml(value, out);
    // Unsafe characters only stand within double quotes, where YAML reads \u as JSON does.
    return printable_json(out.c_str()) + "\n";
}

std::string name_of(const json::object& item, View view) {
    if (view == View::orphan)
        if (auto path = text_at(item, "path"); !path.empty()) return path;
    auto name = view == View::operation ? std::string{} : text_at(item, "name");
    return name.empty() ? text_at(item, "id") : name;
}

std::string render_one(const json::object& item, View view, Format format, base::Wall now) {
    switch (format) {
        case Format::json: return to_json_text(item);
        case Format::yaml: return to_yaml_text(item);
        case Format::name: return printable(name_of(item, view)) + "\n";
        case Format::table: break;
    }
    switch (view) {
        case View::vm: return vm_page(item, now);
        case View::image: return image_page(item, now);
        case View::operation: return operation_page(item, now);
        case View::resources: return resources_table(item);
        case View::orphan: return orphan_table({item});
        case View::catalogue: return catalogue_table({item});
        case View::agent: return agent_page(item, now);
    }
    return {};
}

std::string render_next(const json::object& item, View view, Format format) {
    if (format == Format::json) return to_json_line(item);
    if (format == Format::yaml) return "---\n" + to_yaml_text(item);
    return printable(name_of(item, view)) + "\n";
}

std::string render_list(const json::array& items, View view, Format format, base::Wall now) {
    if (format == Format::json) return to_json_text(items);
    if (format == Format::yaml) return to_yaml_text(items);
    if (format == Format::name) {
        std::string out;
        for (const auto& item : items)
            if (item.is_object()) out += printable(name_of(item.get_object(), view)) + "\n";
        return out;
    }
    switch (view) {
        case View::vm: return vm_table(items, now);
        case View::image: return image_table(items, now);
        case View::operation: return operation_table(items, now);
        case View::orphan: return orphan_table(items);
        case View::catalogue: return catalogue_table(items);
        case View::agent:
        case View::resources: break;
    }
    return {};
}

}  // namespace ghost::cli
