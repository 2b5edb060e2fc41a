// The blobs behind images: <directory>/<sha256>.qcow2 (or .raw), immutable,
// mode 0444. Which names point at them is the agent's business.
#pragma once

#include "base/error.hpp"
#include "base/process.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace ghost::storage {

struct Blob {
    std::string digest;  // "sha256:<hex>"
    std::string path;
    std::string format;  // "qcow2" | "raw"
    std::uint64_t size = 0;
    std::uint64_t virtual_size = 0;
};

struct ImportRequest {
    std::string source;                   // path of a local file
    std::optional<std::string> format;    // raw must be said, since any file is one; qcow2 is recognised
    std::optional<std::string> checksum;  // "sha256:<hex>" | "sha512:<hex>"
    std::string work_name;                // unique; names the temporary file
    // Asked with the source's bytes before anything is copied; empty: whatever the disk has. Its error ends the import.
    std::function<base::Result<void>(std::uint64_t bytes)> room = {};
    // Awaited when the blob is known to be good and not yet in its place: whoever keeps records writes it down here, so
    // that a crash leaves no blob without one. Its error ends the import.
    std::function<boost::asio::awaitable<base::Result<void>>(Blob)> announce = {};
};

struct ImportProgress {
    std::string phase;  // "inspecting", "copying", "checking"
    std::uint64_t done = 0;
    std::uint64_t total = 0;  // bytes
};

class ImageCache {
public:
    ImageCache(std::string directory, Files& files, base::ProcessRunner& processes);

    // Makes the directory and clears temporaries that a crash left.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> open();

    // Copies or reflinks first, then inspects the copy (qemu-img info and check in a child with rlimits), so that what
    // was checked is what is kept. Errors: not_found (source), invalid_image (what is wrong and what is allowed:
    // unknown format, backing file, data file, corrupt, virtual size over `max_virtual_size`), checksum_mismatch
    // (expected, actual), insufficient_storage (needed, free). Nothing is left behind on failure or cancellation.
    [[nodiscard]] boost::asio::awaitable<base::Result<Blob>> import(
        ImportRequest request, std::function<void(const ImportProgress&)> progress);

    [[nodiscard]] boost::asio::awaitable<base::Result<void>> remove(std::string digest, std::string format);
    [[nodiscard]] std::string path_of(const std::string& digest, const std::string& format) const;
    [[nodiscard]] const std::string& directory() const noexcept { return directory_; }

    static constexpr std::uint64_t max_virtual_size = 16ULL << 40;  // 16 TiB

private:
    std::string directory_;
    Files& files_;
    base::ProcessRunner& processes_;
};

}  // namespace ghost::storage
