// Where settings come from: files, drop-ins and the environment, merged by
// RFC 7396, each value remembering its origin.
#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ghost::agent {

struct Origin {
    std::size_t layer = 0;  // the order of reading
    std::string source;     // "agent.yaml", "agent.d/10-local.yaml" or a variable's name
    int line = 0;           // from 1; 0 for a variable
    int column = 0;

    [[nodiscard]] std::string text() const { return line == 0 ? source : source + ":" + std::to_string(line); }
};

// All that is wrong, each with the place to mend it, in the order of reading.
class FaultList {
public:
    void add(const Origin& origin, const std::string& sentence) {
        const auto place = origin.text();
        found_.emplace(std::pair{origin.layer, origin.line}, place.empty() ? sentence : place + ": " + sentence);
    }
    // A fault of no particular place, such as of a value left at its default.
    void add(const std::string& sentence) { add(Origin{}, sentence); }
    [[nodiscard]] bool empty() const noexcept { return found_.empty(); }
    [[nodiscard]] std::vector<std::string> sentences() const {
        std::vector<std::string> all;
        for (const auto& [place, sentence] : found_) {
            if (all.size() == most_told) {
                all.push_back(std::to_string(found_.size() - most_told) + " more faults are not listed");
                break;
            }
            all.push_back(sentence);
        }
        return all;
    }

    static constexpr std::size_t most_told = 20;

private:
    std::multimap<std::pair<std::size_t, int>, std::string> found_;  // by layer and line; equals as they came
};

// Settings as a tree of objects, lists and strings: every scalar is kept as its text, for the typed reader to read. A
// null puts a key back to its default.
struct Layer {
    nlohmann::json values = nlohmann::json::object();
    std::map<std::string, Origin> origins;  // by path: "api.listen_addr", and "api.listen_addr[1]" for a list's element

    // Lays `upper` over this one.
    void merge(const Layer& upper);
    // Null when it isn't set.
    [[nodiscard]] const nlohmann::json* find(std::string_view path) const;
};

// A layer from YAML text. `source` is how faults call it. Anchors, duplicate keys and further documents are faults.
[[nodiscard]] Layer read_yaml(const std::string& text, const std::string& source, std::size_t number,
                              FaultList& faults);

// GHOST_API__LISTEN_ADDR and the like. Variables of other programs are left alone: those without a double
// underscore (but GHOST_STATE_DIR), and those whose section is none of ours nor close to one.
[[nodiscard]] Layer read_environment(const std::map<std::string, std::string>& environment, std::size_t number,
                                     FaultList& faults);

// Adds a fault for every key of `layer` that no version knows, with the nearest one that is known.
void check_known(const Layer& layer, FaultList& faults);

}  // namespace ghost::agent
