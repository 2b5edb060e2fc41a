#include "agent/images/image.hpp"

#include "agent/json_reader.hpp"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include <array>

namespace ghost::agent {
namespace json = boost::json;
namespace {

constexpr std::array<std::string_view, 4> state_names{"downloading", "available", "quarantined", "failed"};

json::value text_or_null(const std::string& text) { return text.empty() ? json::value(nullptr) : json::value(text); }

}  // namespace

std::string_view name_of(ImageState state) noexcept { return state_names.at(static_cast<std::size_t>(state)); }

namespace {

void write_blob(json::object& document, const ImageBlob& blob) {
    document["digest"] = blob.digest;
    document["format"] = blob.format;
    document["size"] = blob.size;
    document["virtual_size"] = blob.virtual_size;
    document["verified"] = blob.verified;
    document["checksum"] = blob.checksum;
}

ImageBlob read_blob(JsonReader& reader) {
    const auto text = [&reader](std::string_view key) { return reader.string(key, 1 << 16).value_or(""); };
    return {.digest = text("digest"),
            .format = text("format"),
            .size = reader.integer("size", 0, UINT64_MAX).value_or(0),
            .virtual_size = reader.integer("virtual_size", 0, UINT64_MAX).value_or(0),
            .verified = text("verified"),
            .checksum = text("checksum")};
}

}  // namespace

std::string to_document(const Image& image) {
    json::object document{{"name", image.name},
                          {"source", image.source},
                          {"architecture", image.architecture},
                          {"state", name_of(image.state)},
                          {"created", base::to_unix_ms(image.created_at)},
                          {"last_used", base::to_unix_ms(image.last_used_at)},
                          {"refreshed", base::to_unix_ms(image.refreshed_at)},
                          {"older", json::array(image.older.begin(), image.older.end())}};
    write_blob(document, image);
    if (image.next) write_blob(document["next"].emplace_object(), *image.next);
    return json::serialize(document);
}

base::Result<Image> image_from_document(std::string_view text_of_it) {
    const auto parsed = parse_json(text_of_it);
    if (!parsed || !parsed->is_object()) return base::fail(base::Errc::io_error, "damaged image document");
    const auto& document = parsed->get_object();
    std::vector<base::Fault> faults;
    JsonReader reader{document, "", faults};
    const auto text = [&reader](std::string_view key) { return reader.string(key, 1 << 16).value_or(""); };
    const auto time = [&reader](std::string_view key) {
        return base::from_unix_ms(static_cast<std::int64_t>(reader.integer(key, 0, INT64_MAX).value_or(0)));
    };
    Image image{read_blob(reader)};
    image.name = text("name");
    image.source = text("source");
    image.architecture = text("architecture");
    image.created_at = time("created");
    image.last_used_at = time("last_used");
    image.refreshed_at = time("refreshed");
    const auto state = text("state");
    for (std::size_t i = 0; i < state_names.size(); ++i)
        if (state_names.at(i) == state) image.state = static_cast<ImageState>(i);
    if (const auto* next = document.if_contains("next"); next != nullptr && next->is_object()) {
        JsonReader of_next{next->get_object(), "/next", faults};
        image.next = read_blob(of_next);
    }
    if (const auto* older = document.if_contains("older"); older != nullptr && older->is_array())
        for (const auto& digest : older->get_array())
            if (digest.is_string()) image.older.emplace_back(digest.get_string());
    if (image.name.empty() || !faults.empty()) return base::fail(base::Errc::io_error, "damaged image document");
    return image;
}

json::object to_resource(const Image& image, const std::vector<std::string>& used_by) {
    const auto time_or_null = [](base::Wall time) {
        return time == base::Wall{} ? json::value(nullptr) : json::value(base::rfc3339(time));
    };
    return {{"name", image.name},
            {"digest", text_or_null(image.digest)},
            {"source", image.source},
            {"format", text_or_null(image.format)},
            {"architecture", image.architecture},
            {"size_bytes", image.size},
            {"virtual_size_bytes", image.virtual_size},
            {"verified", image.verified},
            {"checksum", text_or_null(image.checksum)},
            {"state", name_of(image.state)},
            {"created_at", base::rfc3339(image.created_at)},
            {"last_used_at", time_or_null(image.last_used_at)},
            {"refreshed_at", time_or_null(image.refreshed_at)},
            {"used_by", json::array(used_by.begin(), used_by.end())}};
}

}  // namespace ghost::agent
