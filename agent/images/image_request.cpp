#include "agent/images/image_request.hpp"

#include "agent/images/image_name.hpp"
#include "agent/json_reader.hpp"
#include "net/http.hpp"
#include "net/url.hpp"
#include "storage/checksum.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::agent {
namespace {

constexpr std::string_view file_scheme = "file://";
constexpr std::string_view https_scheme = "https://";

// "/images/web.qcow2" -> "web"; characters that a name can't have become dashes.
std::string name_from_path(std::string_view path) {
    auto base = path.substr(path.rfind('/') + 1);
    for (const std::string_view suffix : {".qcow2", ".img", ".raw"})
        if (base.ends_with(suffix)) base.remove_suffix(suffix.size());
    std::string name{base.substr(0, 128)};
    for (auto& c : name)
        if (!is_image_name(std::string{'a', c})) c = '-';
    return name;
}

// The last part of a URL's path, as lists of checksums name it.
std::string file_of(std::string_view url) {
    const auto path = url.substr(0, url.find_first_of("?#"));
    const auto name = path.substr(path.rfind('/') + 1);
    return net::percent_decode(name).value_or(std::string{name});
}

class Request {
public:
    Request(const boost::json::object& body, const Catalogue& catalogue)
        : reader_(body, "", faults_), catalogue_(catalogue) {}

    base::Result<AddImage> read() {
        reader_.require("source");
        add_.source = reader_.string("source", 4096).value_or("");
        if (const auto name = reader_.string("name", 256)) {
            if (!is_image_name(*name))
                reader_.fault(
                    "name", "expected letters, digits, '-', '_' and '.', starting with a letter or digit, at most 128");
            add_.name = *name;
        }
        add_.format = reader_.one_of("format", {"qcow2", "raw"});
        add_.checksum = reader_.string("checksum", 256);
        if (add_.checksum && !storage::parse_checksum(*add_.checksum))
            reader_.fault("checksum", "expected sha256:<64 hex digits> or sha512:<128 hex digits>");
        add_.allow_unverified = reader_.boolean("allow_unverified").value_or(false);
        if (!add_.source.empty())
            read_source();
        else if (reader_.has("source"))
            reader_.fault("source", "must not be empty");
        reader_.finish();
        if (!faults_.empty()) return base::fail(validation_error(std::move(faults_)));
        if (is_on_the_web(add_.source) && !add_.checksum && !add_.allow_unverified)
            return base::fail(base::Errc::unverified_image,
                              "nothing would prove the image: give its checksum, or allow_unverified");
        return std::move(add_);
    }

private:
    void read_source() {
        if (is_local(add_.source)) {
            const auto path = local_path(add_.source);
            if (path)
                name_from(*path);
            else
                reader_.fault("source", "expected the URL of a local file, file:///absolute/path");
        } else if (is_on_the_web(add_.source)) {
            if (const auto url = net::parse_url(add_.source); !url)
                reader_.fault("source", url.error().detail);
            else
                name_from(file_of(add_.source));
        } else {
            read_catalogue_name();
        }
    }

    void read_catalogue_name() {
        if (!catalogue_.contains(add_.source)) {
            reader_.fault("source", "expected file:///absolute/path, https://..., or a name of the catalogue");
            return;
        }
        if (add_.name.empty()) add_.name = add_.source;
        // What the catalogue names proves itself.
        for (const auto* given : {"checksum", "format"})
            if (reader_.has(given)) reader_.fault(given, "is the catalogue's to say");
    }

    void name_from(std::string_view path) {
        if (reader_.has("name")) return;
        add_.name = name_from_path(path);
        if (!is_image_name(add_.name)) reader_.fault("name", "is required: none can be made from the source");
    }

    std::vector<base::Fault> faults_;
    JsonReader reader_;
    const Catalogue& catalogue_;
    AddImage add_;
};

std::string text_in(const boost::json::object& object, std::string_view key) {
    const auto* const value = object.if_contains(key);
    return value != nullptr && value->is_string() ? std::string{value->get_string()} : std::string{};
}

std::optional<std::string> given_in(const boost::json::object& object, std::string_view key) {
    auto text = text_in(object, key);
    return text.empty() ? std::nullopt : std::optional{std::move(text)};
}

}  // namespace

bool is_local(std::string_view source) noexcept { return source.starts_with(file_scheme); }
bool is_on_the_web(std::string_view source) noexcept { return source.starts_with(https_scheme); }

std::optional<std::string> local_path(std::string_view source) {
    auto path = is_local(source) ? net::percent_decode(source.substr(file_scheme.size())) : std::nullopt;
    if (path && !path->starts_with('/')) path.reset();
    return path;
}

base::Result<AddImage> read_add_image(const boost::json::value& body, const Catalogue& catalogue) {
    if (!body.is_object()) return base::fail(validation_error({{"", "expected an object, got " + describe(body)}}));
    return Request{body.get_object(), catalogue}.read();
}

boost::json::object to_json(const AddImage& add) {
    boost::json::object plan{{"name", add.name}, {"source", add.source}, {"allow_unverified", add.allow_unverified}};
    if (add.checksum) plan["checksum"] = *add.checksum;
    if (add.format) plan["format"] = *add.format;
    return plan;
}

AddImage add_image_from_json(const boost::json::object& plan) {
    const auto* const unverified = plan.if_contains("allow_unverified");
    return {.name = text_in(plan, "name"),
            .source = text_in(plan, "source"),
            .checksum = given_in(plan, "checksum"),
            .format = given_in(plan, "format"),
            .allow_unverified = unverified != nullptr && unverified->is_bool() && unverified->get_bool()};
}

base::Result<ImageSource> find_source(const AddImage& add, const Catalogue& catalogue) {
    ImageSource source;
    source.checksum = add.checksum;
    source.format = add.format;
    if (is_on_the_web(add.source)) {
        source.urls = {add.source};
        return source;
    }
    const auto it = catalogue.find(add.source);
    if (it == catalogue.end())
        return base::fail(base::Errc::not_found, fmt::format("the catalogue has no image {}", add.source));
    const auto& entry = it->second;
    source.urls = {entry.url};
    source.urls.insert(source.urls.end(), entry.mirrors.begin(), entry.mirrors.end());
    if (!entry.checksum.empty()) source.checksum = entry.checksum;
    source.checksums = entry.checksums;
    source.listed_as = file_of(entry.url);
    source.signature = entry.signature;
    source.keyring = entry.keyring;
    return source;
}

}  // namespace ghost::agent
