// Images that are known by name before they are here: where they come from and
// what proves them.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

// One of one architecture. Each URL is https://.
struct CatalogueImage {
    std::string name;
    std::string description;
    std::string user;          // whom cloud-init makes when nobody is named
    std::string architecture;  // "x86_64" | "aarch64"
    std::string url;
    std::vector<std::string> mirrors;
    std::string checksum;      // "sha256:<hex>" | "sha512:<hex>"; empty: `checksums` tells
    std::string checksums;     // URL of a list that names the file of `url`
    std::string signature;     // URL of that list's detached OpenPGP signature; empty: it has none
    std::string keyring;       // OpenPGP keys, binary, one of which must have made it
    std::string keyring_name;  // for people

    friend bool operator==(const CatalogueImage&, const CatalogueImage&) = default;
};

using Catalogue = std::map<std::string, CatalogueImage, std::less<>>;  // of this host's architecture, by name

}  // namespace ghost::agent
