// What the header of a disk image says, read by ourselves before any tool opens the file: a qcow2 may name other
// files (backing, data) that a tool would open in turn.
// https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt
#pragma once

#include "base/error.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ghost::storage {

// How much of a file's beginning the functions below want to see, bytes: the largest cluster there is would be 2 MiB,
// but the header's parts must lie in the first 64 KiB here.
inline constexpr std::size_t image_head_size = 65536;

// The name of the format that the first bytes show: "qcow2", "qcow", "qed", "vmdk", "vhd", "vhdx", "vdi", "luks",
// "parallels", "iso9660", "gzip", "xz", "zstd", "bzip2", "zip"; empty when nothing is recognised (a raw disk, or text).
[[nodiscard]] std::string_view recognise_format(std::string_view head) noexcept;

struct Qcow2Header {
    std::uint32_t version = 0;
    std::uint64_t virtual_size = 0;  // bytes
    bool encrypted = false;
    bool external_data = false;          // its data is in another file
    bool corrupt = false;                // marked so by whoever wrote it last
    std::uint64_t unknown_features = 0;  // incompatible ones that QEMU 7.2 doesn't know either
    std::string backing_path;            // empty: none
    std::string backing_format;
};

// Errors: invalid_image.
[[nodiscard]] base::Result<Qcow2Header> parse_qcow2_header(std::string_view head);

// Refuses what must not get into the cache: invalid_image with a sentence that says what is wrong and what is allowed.
[[nodiscard]] base::Result<void> check_standalone(const Qcow2Header& header);

}  // namespace ghost::storage
