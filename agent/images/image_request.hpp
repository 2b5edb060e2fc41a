// What a caller asks for when an image is to be added, and where that comes from.
#pragma once

#include "agent/images/catalogue.hpp"
#include "base/error.hpp"

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

struct AddImage {
    std::string name;    // empty in a request that doesn't say: from the source
    std::string source;  // "file:///absolute/path", "https://...", or a name of the catalogue
    std::optional<std::string> checksum = {};
    std::optional<std::string> format = {};
    bool allow_unverified = false;
};
// Errors: validation_failed with every fault; unverified_image: nothing would prove it, and that isn't allowed.
[[nodiscard]] base::Result<AddImage> read_add_image(const boost::json::value& body, const Catalogue& catalogue);

// As an operation's plan keeps it, and back.
[[nodiscard]] boost::json::object to_json(const AddImage& add);
[[nodiscard]] AddImage add_image_from_json(const boost::json::object& plan);

// Where the bytes are and what proves them.
struct ImageSource {
    std::string path = {};               // of a local file; empty: `urls`
    std::vector<std::string> urls = {};  // https://, the first and mirrors of it
    std::optional<std::string> checksum = {};
    std::optional<std::string> format = {};
    std::string checksums = {};  // URL of a list that names `listed_as`; empty: none
    std::string listed_as = {};
    std::string signature = {};  // URL; empty: the list has none
    std::string keyring = {};    // OpenPGP keys
};
// Of a source on the web or in the catalogue. Errors: not_found: the catalogue doesn't know it (any more).
[[nodiscard]] base::Result<ImageSource> find_source(const AddImage& add, const Catalogue& catalogue);

[[nodiscard]] bool is_local(std::string_view source) noexcept;       // file://
[[nodiscard]] bool is_on_the_web(std::string_view source) noexcept;  // https://
// The path of a file:// source; nullopt: it is none, or isn't absolute.
[[nodiscard]] std::optional<std::string> local_path(std::string_view source);

}  // namespace ghost::agent
