// Whether a file may become an image: by its first bytes, which we read
// ourselves, then by qemu-img in a child process with limits.
#pragma once

#include "base/error.hpp"
#include "base/process.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <optional>
#include <string>

namespace ghost::storage {

inline constexpr std::uint64_t max_virtual_size = 16ULL << 40;  // of the disk in an image: 16 TiB

struct CheckedImage {
    std::string format;              // "qcow2" | "raw"
    std::uint64_t virtual_size = 0;  // bytes
};

// Of `said`, which a caller may have written anything into. Errors: validation_failed.
[[nodiscard]] base::Result<void> check_format_name(const std::optional<std::string>& said);

// The format to treat a file as, from what was said and what its first bytes show. Errors: invalid_image (what is wrong
// and what is allowed), and Files'.
[[nodiscard]] boost::asio::awaitable<base::Result<std::string>> inspect_head(Files& files, std::string path,
                                                                             std::optional<std::string> said);

// The whole of it, which nobody may change meanwhile: no backing file, no data file, not encrypted, sound, a disk of at
// most max_virtual_size. No tool opens the file before its header was read here. Errors: invalid_image, in which the
// file is called "image"; cancelled, deadline_exceeded, io_error.
[[nodiscard]] boost::asio::awaitable<base::Result<CheckedImage>> check_image(Files& files,
                                                                             base::ProcessRunner& processes,
                                                                             std::string path,
                                                                             std::optional<std::string> said);

}  // namespace ghost::storage
