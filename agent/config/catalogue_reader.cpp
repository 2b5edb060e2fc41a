#include "agent/config/catalogue_reader.hpp"

#include "agent/images/image_name.hpp"
#include "net/url.hpp"
#include "storage/checksum.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

namespace ghost::agent {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 4> of_an_image{"description", "user", "amd64", "arm64"};
constexpr std::array<std::string_view, 6> of_a_source{"url",       "mirrors",   "checksum",
                                                      "checksums", "signature", "keyring"};

class Reader {
public:
    Reader(const Layer& layer, std::string_view architecture, const FindKeyring& find_keyring, FaultList& faults)
        : layer_(layer), find_keyring_(find_keyring), faults_(faults), wanted_(architecture) {}

    Catalogue read() {
        for (const auto& [section, images] : layer_.values.items()) {
            if (section != "images")
                fault(section, "is not known; expected images");
            else if (!images.is_object())
                fault(section, "expected names, each with url and what proves it");
            else
                for (const auto& [name, image] : images.items()) read_image(name, image);
        }
        return std::move(catalogue_);
    }

private:
    // At the place of the nearest that has one: a missing key stands nowhere.
    void fault(const std::string& path, const std::string& sentence) {
        for (auto at = path; !at.empty(); at = at.substr(0, at.rfind('.') == std::string::npos ? 0 : at.rfind('.')))
            if (const auto origin = layer_.origins.find(at); origin != layer_.origins.end()) {
                faults_.add(origin->second, path + ": " + sentence);
                return;
            }
        faults_.add(path + ": " + sentence);
    }

    void read_image(const std::string& name, const json& image) {
        const auto path = "images." + name;
        if (image.is_null()) return;  // taken out
        if (!is_image_name(name))
            fault(path, "expected a name of letters, digits, '-', '_' and '.', at most 128 characters");
        if (!image.is_object()) {
            fault(path, "expected description, user, amd64 and arm64");
            return;
        }
        check_known(path, image, of_an_image);
        for (const auto& [key, architecture] : {std::pair{"amd64", "x86_64"}, {"arm64", "aarch64"}}) {
            const auto source = image.find(key);
            if (source == image.end() || source->is_null()) continue;
            CatalogueImage entry;
            entry.name = name;
            entry.description = text(path, image, "description");
            entry.user = text(path, image, "user");
            entry.architecture = architecture;
            read_source(path + "." + key, *source, entry);
            if (entry.architecture == wanted_) catalogue_.emplace(name, std::move(entry));
        }
    }

    void read_source(const std::string& path, const json& source, CatalogueImage& entry) {
        if (!source.is_object()) {
            fault(path, "expected url and what proves it");
            return;
        }
        check_known(path, source, of_a_source);
        entry.url = url(path, source, "url");
        if (entry.url.empty() && !source.contains("url")) fault(path, "url is missing");
        read_mirrors(path, source, entry);
        entry.checksum = text(path, source, "checksum");
        if (!entry.checksum.empty())
            if (const auto sound = storage::parse_checksum(entry.checksum); !sound)
                fault(path + ".checksum", "expected sha256:<64 hex digits> or sha512:<128 hex digits>");
        entry.checksums = url(path, source, "checksums");
        entry.signature = url(path, source, "signature");
        entry.keyring_name = text(path, source, "keyring");
        const auto given = [&source](const char* key) {
            const auto value = source.find(key);
            return value != source.end() && !value->is_null() && *value != "";
        };
        if (given("checksum") == given("checksums"))
            fault(path, "expected either checksum or checksums: nothing else proves the image");
        if (entry.signature.empty() != entry.keyring_name.empty())
            fault(path, "signature and keyring stand together or not at all");
        if (!entry.signature.empty() && entry.checksums.empty())
            fault(path + ".signature", "is of a list of checksums, and there is none");
        if (entry.keyring_name.empty()) return;
        if (auto keys = find_keyring_(entry.keyring_name)) {
            entry.keyring = std::move(*keys);
            if (entry.keyring.starts_with("-----BEGIN"))
                fault(path + ".keyring", "is armoured; expected binary keys (gpg --dearmor makes them)");
        } else
            fault(path + ".keyring",
                  fmt::format("there is no keyring {}; expected a file beside this one", entry.keyring_name));
    }

    void read_mirrors(const std::string& path, const json& source, CatalogueImage& entry) {
        const auto mirrors = source.find("mirrors");
        if (mirrors == source.end() || mirrors->is_null()) return;
        if (!mirrors->is_array()) {
            fault(path + ".mirrors", "expected a list of https:// addresses");
            return;
        }
        for (std::size_t i = 0; i < mirrors->size(); ++i)
            if (auto one = checked_url(fmt::format("{}.mirrors[{}]", path, i), (*mirrors)[i]); !one.empty())
                entry.mirrors.push_back(std::move(one));
    }

    std::string text(const std::string& path, const json& object, std::string_view key) {
        const auto value = object.find(key);
        if (value == object.end() || value->is_null()) return {};
        if (value->is_string()) return value->get<std::string>();
        fault(fmt::format("{}.{}", path, key), "expected a single value");
        return {};
    }

    std::string url(const std::string& path, const json& object, std::string_view key) {
        const auto value = object.find(key);
        if (value == object.end() || value->is_null()) return {};
        return checked_url(fmt::format("{}.{}", path, key), *value);
    }

    std::string checked_url(const std::string& path, const json& value) {
        auto given = value.is_string() ? value.get<std::string>() : std::string{};
        const auto parsed = net::parse_url(given);
        if (parsed && parsed->scheme == "https") return given;
        fault(path, parsed ? "expected an https:// address" : parsed.error().detail);
        return {};
    }

    template <std::size_t n>
    void check_known(const std::string& path, const json& object, const std::array<std::string_view, n>& known) {
        for (const auto& [key, value] : object.items())
            if (std::ranges::find(known, key) == known.end())
                fault(path + "." + key, fmt::format("is not known; expected {}", fmt::join(known, ", ")));
    }

    const Layer& layer_;
    const FindKeyring& find_keyring_;
    FaultList& faults_;
    std::string_view wanted_;
    Catalogue catalogue_;
};

}  // namespace

Catalogue read_catalogue(const Layer& layer, std::string_view architecture, const FindKeyring& find_keyring,
                         FaultList& faults) {
    return Reader{layer, architecture, find_keyring, faults}.read();
}

}  // namespace ghost::agent
