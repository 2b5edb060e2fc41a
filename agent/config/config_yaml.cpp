#include "agent/config/config_layers.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

namespace ghost::agent {
namespace {

// Builds a layer from the parser's events. Events and not nodes, since nodes forget duplicate keys and follow aliases.
class LayerBuilder final : public YAML::EventHandler {
public:
    LayerBuilder(const std::string& text, std::string source, std::size_t number, Layer& layer, FaultList& faults)
        : source_(std::move(source)), number_(number), layer_(layer), faults_(faults) {
        std::istringstream in{text};
        for (std::string line; std::getline(in, line);) lines_.push_back(std::move(line));
    }

    void OnDocumentStart(const YAML::Mark& /*mark*/) override {}
    void OnDocumentEnd() override {}

    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        refuse_anchor(mark, anchor);
        if (stack_.empty()) return;  // an empty document
        if (key_expected())
            take_key("", mark);
        else
            put(nullptr, mark);
    }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
        faults_.add(at(mark), "aliases (*name) are not supported: write the value out");
        if (key_expected())
            take_key("", mark);
        else
            put(nullptr, mark);
    }
    void OnScalar(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t anchor,
                  const std::string& value) override {
        refuse_anchor(mark, anchor);
        if (quote_stays_open(mark)) faults_.add(at(mark), "a quotation mark is not closed on its line");
        if (stack_.empty())
            faults_.add(at(mark), "expected sections such as \"agent:\", got a single value");
        else if (key_expected())
            take_key(value, mark);
        else
            put(value, mark);
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value /*style*/) override {
        refuse_anchor(mark, anchor);
        if (stack_.empty()) faults_.add(at(mark), "expected sections such as \"agent:\", got a list");
        open(mark, nlohmann::json::array());
    }
    void OnSequenceEnd() override { close(); }
    void OnMapStart(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value /*style*/) override {
        refuse_anchor(mark, anchor);
        open(mark, nlohmann::json::object());
    }
    void OnMapEnd() override { close(); }

    // The document, when it was one of sections.
    [[nodiscard]] nlohmann::json take_root() { return root_.is_object() ? std::move(root_) : nlohmann::json::object(); }

private:
    struct Frame {
        nlohmann::json value;
        std::string path;
        std::optional<std::string> key = std::nullopt;  // of the member whose value comes next
        bool duplicate = false;                         // that key stood here before; its value is passed over
        bool is_key = false;                            // this list or map stands where a key should
    };

    [[nodiscard]] Origin at(const YAML::Mark& mark) const { return {number_, source_, mark.line + 1, mark.column + 1}; }

    void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
        if (anchor != 0) faults_.add(at(mark), "anchors (&name) are not supported: write the value out");
    }

    // The parser takes a quote that never closes for one that ends with the file, and all the keys in between for text.
    [[nodiscard]] bool quote_stays_open(const YAML::Mark& mark) const {
        if (mark.line < 0 || mark.column < 0 || static_cast<std::size_t>(mark.line) >= lines_.size()) return false;
        const std::string_view line = lines_[static_cast<std::size_t>(mark.line)];
        auto at = static_cast<std::size_t>(mark.column);
        if (at >= line.size() || (line[at] != '"' && line[at] != '\'')) return false;
        const char quote = line[at++];
        for (; at < line.size(); ++at) {
            if (line[at] == '\\' && quote == '"')
                ++at;
            else if (line[at] == quote && at + 1 < line.size() && line[at + 1] == quote && quote == '\'')
                ++at;
            else if (line[at] == quote)
                return false;
        }
        return true;
    }

    [[nodiscard]] bool key_expected() const {
        return !stack_.empty() && stack_.back().value.is_object() && !stack_.back().key;
    }

    void take_key(const std::string& key, const YAML::Mark& mark) {
        auto& frame = stack_.back();
        const auto path = frame.path.empty() ? key : frame.path + '.' + key;
        frame.duplicate = frame.value.contains(key);
        if (key.empty()) faults_.add(at(mark), "expected a key before the colon");
        if (frame.duplicate)
            faults_.add(at(mark),
                        path + ": stands twice, first at line " + std::to_string(layer_.origins.at(path).line));
        else
            layer_.origins[path] = at(mark);
        frame.key = key;
    }

    // The path of the value that comes next.
    [[nodiscard]] std::string next_path() const {
        const auto& frame = stack_.back();
        if (frame.value.is_array()) return frame.path + '[' + std::to_string(frame.value.size()) + ']';
        return frame.path.empty() ? *frame.key : frame.path + '.' + *frame.key;
    }

    void put(nlohmann::json value, const YAML::Mark& mark) {
        if (stack_.back().value.is_array()) layer_.origins[next_path()] = at(mark);
        put(std::move(value));
    }
    void put(nlohmann::json value) {
        auto& frame = stack_.back();
        if (frame.value.is_array()) {
            frame.value.push_back(std::move(value));
            return;
        }
        if (!frame.duplicate) frame.value[*frame.key] = std::move(value);
        frame.key.reset();
    }

    void open(const YAML::Mark& mark, nlohmann::json empty) {
        if (key_expected()) {
            faults_.add(at(mark), "expected a key, got a list or a section");
            stack_.push_back({std::move(empty), "", std::nullopt, false, true});
            return;
        }
        std::string path;
        if (!stack_.empty()) {
            path = next_path();
            if (stack_.back().value.is_array()) layer_.origins[path] = at(mark);
        }
        stack_.push_back({std::move(empty), std::move(path)});
    }

    void close() {
        auto frame = std::move(stack_.back());
        stack_.pop_back();
        if (stack_.empty()) {
            root_ = std::move(frame.value);
            return;
        }
        if (frame.is_key) {
            stack_.back().key = "";
            stack_.back().duplicate = true;
            return;
        }
        put(std::move(frame.value));
    }

    std::string source_;
    std::vector<std::string> lines_;
    std::size_t number_;
    Layer& layer_;
    FaultList& faults_;
    std::vector<Frame> stack_;
    nlohmann::json root_ = nlohmann::json::object();
};

}  // namespace

Layer read_yaml(const std::string& text, const std::string& source, std::size_t number, FaultList& faults) {
    Layer layer;
    LayerBuilder builder{text, source, number, layer, faults};
    std::istringstream in{text};
    try {
        YAML::Parser parser{in};
        if (parser.HandleNextDocument(builder)) {
            layer.values = builder.take_root();
            Layer further;
            FaultList unheard;
            LayerBuilder rest{text, source, number, further, unheard};
            if (parser.HandleNextDocument(rest))
                faults.add({number, source, 0, 0}, "holds more than one document; put the second into a drop-in");
        }
    } catch (const YAML::Exception& e) {
        faults.add({number, source, e.mark.line + 1, e.mark.column + 1},
                   "is no valid YAML at column " + std::to_string(e.mark.column + 1) + ": " + e.msg);
    }
    return layer;
}

}  // namespace ghost::agent
