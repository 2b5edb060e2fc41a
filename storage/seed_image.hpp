// A NoCloud seed: the ISO 9660 image, labelled CIDATA, that cloud-init reads at first boot.
// https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
#pragma once

#include "base/error.hpp"

#include <string>

namespace ghost::storage {

struct SeedFiles {
    std::string meta_data;
    std::string user_data;
    std::string vendor_data;     // left out when empty
    std::string network_config;  // left out when empty
};

// The bytes of the image, made with libarchive (which keeps the contents in an unlinked file in TMPDIR meanwhile): some
// 80 KiB more than the files have. The same files give the same bytes. Errors: io_error.
[[nodiscard]] base::Result<std::string> build_seed_image(const SeedFiles& files);

}  // namespace ghost::storage
