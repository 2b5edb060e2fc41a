// An image: a name that points at an immutable blob in the cache.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <boost/json/object.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

enum class ImageState : std::uint8_t { downloading, available, quarantined, failed };
[[nodiscard]] std::string_view name_of(ImageState state) noexcept;

struct Image {
    std::string name;
    std::string digest;        // "sha256:<hex>", empty until it is known
    std::string source;        // what it was made from, a URL
    std::string format;        // "qcow2" | "raw"
    std::string architecture;  // "x86_64" | "aarch64"
    std::uint64_t size = 0;    // bytes of the blob
    std::uint64_t virtual_size = 0;
    std::string verified = "local";  // "signature" | "checksum" | "local" | "none"
    ImageState state = ImageState::downloading;
    base::Wall created_at;
    base::Wall last_used_at;
};

[[nodiscard]] std::string to_document(const Image& image);
[[nodiscard]] base::Result<Image> image_from_document(std::string_view document);
[[nodiscard]] boost::json::object to_resource(const Image& image, const std::vector<std::string>& used_by);

// Letters, digits, '-', '_' and '.', starting with a letter or digit, at most 128 characters.
[[nodiscard]] bool is_image_name(std::string_view name) noexcept;

}  // namespace ghost::agent
