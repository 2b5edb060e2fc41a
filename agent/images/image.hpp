// An image: a name that points at an immutable blob in the cache.
#pragma once

#include "agent/images/image_name.hpp"
#include "base/clock.hpp"
#include "base/error.hpp"

#include <boost/json/object.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

enum class ImageState : std::uint8_t { downloading, available, quarantined, failed };
[[nodiscard]] std::string_view name_of(ImageState state) noexcept;

// A blob, and how it came to be trusted.
struct ImageBlob {
    std::string digest = {};  // "sha256:<hex>", empty until it is known
    std::string format = {};  // "qcow2" | "raw"
    std::uint64_t size = 0;   // bytes of the blob
    std::uint64_t virtual_size = 0;
    std::string verified = "local";  // "signature" | "checksum" | "local" | "none"
    std::string checksum = {};       // what it was checked against: "sha256:<hex>" | "sha512:<hex>"; empty: nothing
};

struct Image : ImageBlob {
    std::string name = {};
    std::string source = {};        // what it was made from: a URL, or a name of the catalogue
    std::string architecture = {};  // "x86_64" | "aarch64"
    ImageState state = ImageState::downloading;
    base::Wall created_at = {};
    base::Wall last_used_at = {};
    base::Wall refreshed_at = {};  // when it was last found to be, or made, what its source has
    // Of a refresh, between the moment at which the newer blob is known to be good and the one at which the name moves
    // to it, so that no crash leaves it to nobody. Not shown.
    std::optional<ImageBlob> next = {};
    std::vector<std::string> older = {};  // digests that the name pointed at before, which VMs may stand on. Not shown.
};

[[nodiscard]] std::string to_document(const Image& image);
[[nodiscard]] base::Result<Image> image_from_document(std::string_view document);
[[nodiscard]] boost::json::object to_resource(const Image& image, const std::vector<std::string>& used_by);

}  // namespace ghost::agent
