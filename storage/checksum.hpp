// Checksums as people and vendors write them.
#pragma once

#include "base/error.hpp"
#include "storage/files.hpp"

#include <string>
#include <string_view>

namespace ghost::storage {

struct Checksum {
    std::string kind;  // "sha256" | "sha512"
    std::string hex;   // lower case

    friend bool operator==(const Checksum&, const Checksum&) = default;
};
[[nodiscard]] std::string to_string(const Checksum& checksum);  // "sha256:<hex>"

// "sha256:<64 hex digits>" or "sha512:<128 hex digits>", in either case. Errors: validation_failed.
[[nodiscard]] base::Result<Checksum> parse_checksum(std::string_view text);

// Errors: checksum_mismatch (facts: expected, actual). `copied` has the digest of the checksum's kind.
[[nodiscard]] base::Result<void> compare(const Checksum& expected, const Copied& copied);

// The checksum of the file `name` in a vendor's list: lines of sha256sum or sha512sum ("<hex>  name", "<hex> *name"),
// of the BSD kind ("SHA256 (name) = <hex>"), or a lone digest. A path before the name in the list is passed over.
// Errors: source_unavailable (the list doesn't name it, or names it twice with different digests).
[[nodiscard]] base::Result<Checksum> find_checksum(std::string_view list, std::string_view name);

}  // namespace ghost::storage
