#include "agent/config/config_layers.hpp"

#include "agent/config/config_keys.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

namespace ghost::agent {
namespace {

const std::vector<std::string>& known_keys() {
    static const std::vector<std::string> all = [] {
        std::vector<std::string> paths;
        const Config config;
        keys::each_key(config, [&paths](std::string_view path, const auto&, const auto&) { paths.emplace_back(path); });
        return paths;
    }();
    return all;
}

std::string_view section_of(std::string_view path) {
    const auto dot = path.find('.');
    return dot == std::string_view::npos ? std::string_view{} : path.substr(0, dot);
}

const std::set<std::string, std::less<>>& sections() {
    static const std::set<std::string, std::less<>> all = [] {
        std::set<std::string, std::less<>> names;
        for (const auto& key : known_keys())
            if (!section_of(key).empty()) names.emplace(section_of(key));
        return names;
    }();
    return all;
}

// Levenshtein's distance.
std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i);
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const auto replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row.back();
}

bool is_close(std::string_view a, std::string_view b) {
    if (std::max(a.size(), b.size()) > 64) return false;
    return distance(a, b) <= std::max<std::size_t>(1, std::min(a.size(), b.size()) / 4);
}

std::optional<std::string> nearest(std::string_view wrong, const auto& candidates) {
    std::optional<std::string> best;
    for (const auto& candidate : candidates)
        if (is_close(wrong, candidate) && (!best || distance(wrong, candidate) < distance(wrong, *best)))
            best = candidate;
    return best;
}

// What to say of a key nobody knows.
std::string advice(const std::string& path) {
    const auto section = std::string{section_of(path)};
    if (section.empty()) {
        auto names = std::vector<std::string>{sections().begin(), sections().end()};
        names.emplace_back("state_dir");
        if (const auto meant = nearest(path, names)) return "unknown key; did you mean " + *meant + "?";
        return fmt::format("unknown key; there are {}", fmt::join(names, ", "));
    }
    const auto name = path.substr(section.size() + 1);
    std::vector<std::string> siblings;
    for (const auto& key : known_keys())
        if (section_of(key) == section) siblings.push_back(key.substr(section.size() + 1));
    if (const auto meant = nearest(name, siblings))
        return fmt::format("unknown key; did you mean {}.{}?", section, *meant);
    if (siblings.empty())
        if (const auto meant = nearest(path, known_keys())) return fmt::format("unknown key; did you mean {}?", *meant);
    // A key that stands in the wrong section, such as listen_addr under agent.
    std::vector<std::string> elsewhere;
    for (const auto& key : known_keys())
        if (key.ends_with("." + name)) elsewhere.push_back(key);
    if (elsewhere.size() == 1) return "unknown key; did you mean " + elsewhere.front() + "?";
    return fmt::format("unknown key; {} has {}", section, fmt::join(siblings, ", "));
}

// Walks sections down to what isn't one, and reports what no key's path is.
void check_object(const Layer& layer, const nlohmann::json& object, const std::string& prefix, FaultList& faults) {
    for (const auto& [name, value] : object.items()) {
        if (name.empty()) continue;  // reported by the reader
        const auto path = prefix.empty() ? name : prefix + '.' + name;
        if (name.contains('.')) {
            faults.add(layer.origins.at(path), path + ": unknown key; write a section's keys below its name");
            continue;
        }
        if (std::ranges::find(known_keys(), path) != known_keys().end()) continue;  // its value is the typed reader's
        if (!prefix.empty() || !sections().contains(name))
            faults.add(layer.origins.at(path), path + ": " + advice(path));
        else if (value.is_object())
            check_object(layer, value, path, faults);
        else if (!value.is_null())
            faults.add(layer.origins.at(path), path + ": expected a section with keys below it");
    }
}

std::string lower(std::string_view text) {
    std::string out{text};
    std::ranges::transform(out, out.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return out;
}

// The path a variable names; nothing when the variable isn't ours.
std::optional<std::string> path_of_variable(std::string_view name) {
    if (!name.starts_with("GHOST_")) return std::nullopt;
    auto rest = lower(name.substr(6));
    if (rest == "state_dir") return rest;
    const auto split = rest.find("__");
    if (split == std::string::npos) return std::nullopt;
    const auto section = rest.substr(0, split);
    if (!sections().contains(section) && !nearest(section, sections())) return std::nullopt;
    auto path = section;
    for (auto at = split; at < rest.size();) {
        const auto next = rest.find("__", at + 2);
        path += '.' + rest.substr(at + 2, next == std::string::npos ? next : next - at - 2);
        at = next;
    }
    return path;
}

}  // namespace

void Layer::merge(const Layer& upper) {
    // RFC 7396 replaces a value whole: what stood inside it, such as a list's elements, has no origin any more.
    for (const auto& [path, origin] : upper.origins) {
        if (!path.ends_with(']'))
            std::erase_if(origins, [&path](const auto& known) { return known.first.starts_with(path + '['); });
    }
    for (const auto& [path, origin] : upper.origins) origins[path] = origin;
    values.merge_patch(upper.values);
}

const nlohmann::json* Layer::find(std::string_view path) const {
    const auto* value = &values;
    while (!path.empty()) {
        const auto dot = path.find('.');
        if (!value->is_object()) return nullptr;
        const auto it = value->find(path.substr(0, dot));
        if (it == value->end()) return nullptr;
        value = &*it;
        path.remove_prefix(dot == std::string_view::npos ? path.size() : dot + 1);
    }
    return value;
}

Layer read_environment(const std::map<std::string, std::string>& environment, std::size_t number, FaultList& faults) {
    Layer layer;
    for (const auto& [name, value] : environment) {
        const auto path = path_of_variable(name);
        if (!path) continue;
        const Origin origin{number, name, 0, 0};
        if (std::ranges::find(known_keys(), *path) == known_keys().end()) {
            faults.add(origin, *path + ": " + advice(*path));
            continue;
        }
        layer.origins[*path] = origin;
        if (const auto section = std::string{section_of(*path)}; section.empty())
            layer.values[*path] = value;
        else
            layer.values[section][path->substr(section.size() + 1)] = value;
    }
    return layer;
}

void check_known(const Layer& layer, FaultList& faults) { check_object(layer, layer.values, "", faults); }

}  // namespace ghost::agent
