#include "agent/config/config_reader.hpp"

#include "agent/config/config_keys.hpp"
#include "agent/config/config_values.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <type_traits>

namespace ghost::agent {
namespace {

// A value as a fault shows it: short, and harmless to print.
std::string shown(const nlohmann::json& value) {
    if (value.is_object()) return "a section";
    if (value.is_array()) return "a list";
    if (value.is_null()) return "nothing";
    auto text = value.get<std::string>();
    if (text.size() > 80) text = text.substr(0, 80) + "...";
    return nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

std::string number_text(double number) { return fmt::format("{}", number); }

std::string size_text(std::uint64_t bytes) {
    return bytes % 1024 == 0 && bytes != 0 ? fmt::format("{}KiB", bytes / 1024) : fmt::format("{} bytes", bytes);
}

std::string span_text(std::chrono::milliseconds span) {
    using namespace std::chrono;
    if (span % days{1} == 0ms) return fmt::format("{}d", duration_cast<days>(span).count());
    if (span % 1h == 0ms) return fmt::format("{}h", duration_cast<hours>(span).count());
    if (span % 1s == 0ms) return fmt::format("{}s", duration_cast<seconds>(span).count());
    return fmt::format("{}ms", span.count());
}

bool is_printable(std::string_view text) {
    return std::ranges::none_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

class TypedReader {
public:
    TypedReader(const Layer& layer, FaultList& faults) : layer_(layer), faults_(faults) {}

    void operator()(std::string_view path, auto& member, const auto& rule) {
        const auto* value = layer_.find(path);
        if (value == nullptr) return;
        path_ = path;
        read(*value, member, rule);
    }

private:
    void fault(const nlohmann::json& value, std::string_view expected, const std::string& element = "") {
        faults_.add(layer_.origins.at(path_ + element),
                    fmt::format("{}: expected {}, got {}", path_ + element, expected, shown(value)));
    }

    // The scalar's text, or a fault.
    const std::string* text_of(const nlohmann::json& value, std::string_view expected) {
        if (value.is_string()) return value.get_ptr<const std::string*>();
        fault(value, expected);
        return nullptr;
    }

    // Reads a scalar through `parse`, which gives nothing for what it doesn't accept.
    template <class T>
    void read_with(const nlohmann::json& value, T& member, const std::string& expected, auto parse) {
        const auto* text = text_of(value, expected);
        if (text == nullptr) return;
        if (const auto parsed = parse(*text))
            member = static_cast<T>(*parsed);
        else
            fault(value, expected);
    }

    void read(const nlohmann::json& value, std::string& member, const keys::Text& rule) {
        const auto expected = rule.required ? "text that isn't empty" : "text";
        const auto* text = text_of(value, expected);
        if (text == nullptr) return;
        if ((text->empty() && rule.required) || text->size() > 4096 || !is_printable(*text)) {
            const auto what = text->empty() ? expected : "at most 4096 characters on one line";
            fault(rule.secret ? nlohmann::json("(a secret)") : value, what);
            return;
        }
        member = *text;
    }

    static std::optional<std::string> absolute(const std::string& text, bool required) {
        if (text.empty() && !required) return text;
        return text.starts_with('/') && is_printable(text) && text.size() < 4096 ? std::optional{text} : std::nullopt;
    }
    void read(const nlohmann::json& value, std::string& member, const keys::AbsolutePath& rule) {
        read_with(value, member, "an absolute path",
                  [&rule](const std::string& text) { return absolute(text, rule.required); });
    }
    void read(const nlohmann::json& value, std::string& member, const keys::UrlPath& /*rule*/) {
        read_with(value, member, "a path such as /metrics", [](const std::string& text) {
            const bool plain = text.size() > 1 && text.starts_with('/') && std::ranges::all_of(text, [](char c) {
                                   return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                                          std::string_view{"/-_."}.contains(c);
                               });
            return plain ? std::optional{text} : std::nullopt;
        });
    }

    static constexpr auto address_expected = "a numeric address and port such as 127.0.0.1:9092";
    static constexpr auto addresses_expected = "numeric addresses and ports such as 127.0.0.1:9092, or tailscale:9092";
    static std::string_view expected_instead_of(std::string_view text) {
        return text.starts_with("tailscale:")
                   ? "a numeric address and port such as 127.0.0.1:9092 (tailscale:PORT is for api.listen_addr only)"
                   : address_expected;
    }
    void read(const nlohmann::json& value, std::string& member, const keys::Listen& rule) {
        const auto* text = text_of(value, address_expected);
        if (text == nullptr) return;
        if (parse_listen_address(*text) || (text->empty() && !rule.required))
            member = *text;
        else
            fault(value, expected_instead_of(*text));
    }

    // The texts of a list: one value alone counts as a list of one, a variable's are separated by commas.
    std::optional<std::vector<std::string>> texts_of(const nlohmann::json& value, std::string_view expected) {
        std::vector<std::string> texts;
        if (value.is_string()) {
            std::string_view rest = *value.get_ptr<const std::string*>();
            const bool variable = layer_.origins.at(path_).line == 0;
            while (!rest.empty()) {
                const auto end = variable ? rest.find(',') : std::string_view::npos;
                texts.emplace_back(rest.substr(0, end));
                rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
            }
            return texts;
        }
        if (!value.is_array()) {
            fault(value, expected);
            return std::nullopt;
        }
        bool sound = true;
        for (std::size_t i = 0; i < value.size(); ++i) {
            if (value[i].is_string()) {
                texts.push_back(value[i].get<std::string>());
            } else {
                fault(value[i], expected, fmt::format("[{}]", i));
                sound = false;
            }
        }
        return sound ? std::optional{texts} : std::nullopt;
    }
    void read_list(const nlohmann::json& value, std::vector<std::string>& member, std::string_view expected,
                   auto accepts) {
        const auto texts = texts_of(value, expected);
        if (!texts) return;
        constexpr std::size_t most = 64;
        if (texts->size() > most) return fault(value, fmt::format("at most {} of them", most));
        bool sound = true;
        for (std::size_t i = 0; i < texts->size(); ++i) {
            if (accepts((*texts)[i])) continue;
            fault((*texts)[i], expected, value.is_array() ? fmt::format("[{}]", i) : "");
            sound = false;
        }
        if (sound) member = *texts;
    }
    void read(const nlohmann::json& value, std::vector<std::string>& member, const keys::Paths& /*rule*/) {
        read_list(value, member, "absolute paths",
                  [](const std::string& text) { return absolute(text, true).has_value(); });
    }
    void read(const nlohmann::json& value, std::vector<std::string>& member, const keys::ListenList& /*rule*/) {
        read_list(value, member, addresses_expected, [](const std::string& text) {
            return parse_listen_address(text).has_value() || parse_tailnet_port(text).has_value();
        });
    }

    void read(const nlohmann::json& value, bool& member, const keys::Flag& /*rule*/) {
        read_with(value, member, "true or false", parse_flag);
    }
    void read(const nlohmann::json& value, double& member, const keys::Number& rule) {
        auto expected = "a number of at least " + number_text(rule.min);
        const auto* text = value.is_string() ? value.get_ptr<const std::string*>() : nullptr;
        if (const auto number = text != nullptr ? parse_number(*text) : std::nullopt; number && *number > rule.max)
            expected = "a number of at most " + number_text(rule.max);
        read_with(value, member, expected, [&rule](const std::string& t) -> std::optional<double> {
            const auto number = parse_number(t);
            return number && *number >= rule.min && *number <= rule.max ? number : std::nullopt;
        });
    }
    template <class N>
    void read(const nlohmann::json& value, N& member, const keys::Whole& rule) {
        read_with(value, member, fmt::format("a whole number from {} to {}", rule.min, rule.max),
                  [&rule](const std::string& text) -> std::optional<std::uint64_t> {
                      const auto number = parse_whole(text);
                      return number && *number >= rule.min && *number <= rule.max ? number : std::nullopt;
                  });
    }
    void read(const nlohmann::json& value, std::uint64_t& member, const keys::Size& rule) {
        const auto least = rule.min == 0 ? std::string{} : " of at least " + size_text(rule.min);
        read_with(value, member, "a size such as 100MB or 10GiB" + least,
                  [&rule](const std::string& text) -> std::optional<std::uint64_t> {
                      const auto size = parse_size(text, rule.bare);
                      return size && *size >= rule.min ? size : std::nullopt;
                  });
    }
    template <class D>
        requires std::is_convertible_v<D, std::chrono::milliseconds>
    void read(const nlohmann::json& value, D& member, const keys::Span& rule) {
        const auto expected =
            fmt::format("a duration such as 30s or 5m, from {} to {}", span_text(rule.min), span_text(rule.max));
        const auto* text = text_of(value, expected);
        if (text == nullptr) return;
        const auto span = parse_duration(*text, rule.bare);
        if (span && *span >= rule.min && *span <= rule.max)
            member = std::chrono::ceil<D>(*span);
        else
            fault(value, expected);
    }
    template <class E, std::size_t n>
    void read(const nlohmann::json& value, E& member, const keys::Choice<E, n>& rule) {
        std::vector<std::string_view> words;
        words.reserve(rule.words.size());
        for (const auto& [word, meaning] : rule.words) words.push_back(word);
        read_with(value, member, fmt::format("one of {}", fmt::join(words, ", ")),
                  [&rule](const std::string& text) -> std::optional<E> {
                      for (const auto& [word, meaning] : rule.words)
                          if (word == text) return meaning;
                      return std::nullopt;
                  });
    }

    const Layer& layer_;
    FaultList& faults_;
    std::string path_;  // of the key being read
};

}  // namespace

Config read_typed(const Layer& layer, FaultList& faults) {
    Config config;
    keys::each_key(config, TypedReader{layer, faults});
    config.grpc.configured = layer.find("grpc") != nullptr;
    return config;
}

}  // namespace ghost::agent
