#include "agent/images/image.hpp"

#include "agent/json_reader.hpp"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <array>
#include <cctype>

namespace ghost::agent {
namespace json = boost::json;
namespace {

constexpr std::array<std::string_view, 4> state_names{"downloading", "available", "quarantined", "failed"};

json::value text_or_null(const std::string& text) { return text.empty() ? json::value(nullptr) : json::value(text); }

}  // namespace

std::string_view name_of(ImageState state) noexcept { return state_names.at(static_cast<std::size_t>(state)); }

std::string to_document(const Image& image) {
    return json::serialize(json::object{{"name", image.name},
                                        {"digest", image.digest},
                                        {"source", image.source},
                                        {"format", image.format},
                                        {"architecture", image.architecture},
                                        {"size", image.size},
                                        {"virtual_size", image.virtual_size},
                                        {"verified", image.verified},
                                        {"state", name_of(image.state)},
                                        {"created", base::to_unix_ms(image.created_at)},
                                        {"last_used", base::to_unix_ms(image.last_used_at)}});
}

base::Result<Image> image_from_document(std::string_view document) {
    const auto parsed = parse_json(document);
    if (!parsed || !parsed->is_object()) return base::fail(base::Errc::io_error, "damaged image document");
    std::vector<base::Fault> faults;
    JsonReader reader{parsed->get_object(), "", faults};
    const auto text = [&reader](std::string_view key) { return reader.string(key, 1 << 16).value_or(""); };
    const auto time = [&reader](std::string_view key) {
        return base::from_unix_ms(static_cast<std::int64_t>(reader.integer(key, 0, INT64_MAX).value_or(0)));
    };
    Image image{.name = text("name"),
                .digest = text("digest"),
                .source = text("source"),
                .format = text("format"),
                .architecture = text("architecture"),
                .size = reader.integer("size", 0, UINT64_MAX).value_or(0),
                .virtual_size = reader.integer("virtual_size", 0, UINT64_MAX).value_or(0),
                .verified = text("verified"),
                .created_at = time("created"),
                .last_used_at = time("last_used")};
    const auto state = text("state");
    for (std::size_t i = 0; i < state_names.size(); ++i)
        if (state_names.at(i) == state) image.state = static_cast<ImageState>(i);
    if (image.name.empty() || !faults.empty()) return base::fail(base::Errc::io_error, "damaged image document");
    return image;
}

json::object to_resource(const Image& image, const std::vector<std::string>& used_by) {
    return {{"name", image.name},
            {"digest", text_or_null(image.digest)},
            {"source", image.source},
            {"format", text_or_null(image.format)},
            {"architecture", image.architecture},
            {"size_bytes", image.size},
            {"virtual_size_bytes", image.virtual_size},
            {"verified", image.verified},
            {"state", name_of(image.state)},
            {"created_at", base::rfc3339(image.created_at)},
            {"last_used_at", image.last_used_at == base::Wall{} ? json::value(nullptr)
                                                                : json::value(base::rfc3339(image.last_used_at))},
            {"used_by", json::array(used_by.begin(), used_by.end())}};
}

bool is_image_name(std::string_view name) noexcept {
    if (name.empty() || name.size() > 128 || std::isalnum(static_cast<unsigned char>(name.front())) == 0) return false;
    return std::ranges::all_of(name, [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
    });
}

}  // namespace ghost::agent
