// The blobs behind images: <directory>/<sha256>.qcow2 (or .raw), immutable,
// mode 0444. Which names point at them is the agent's business.
#pragma once

#include "base/error.hpp"
#include "base/process.hpp"
#include "storage/checksum.hpp"
#include "storage/fetcher.hpp"
#include "storage/files.hpp"
#include "storage/image_check.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace ghost::storage {

struct Blob {
    std::string digest;  // "sha256:<hex>"
    std::string path;
    std::string format;  // "qcow2" | "raw"
    std::uint64_t size = 0;
    std::uint64_t virtual_size = 0;
};

// What the taking in of an image asks and tells, wherever the image comes from.
struct TakeIn {
    std::optional<std::string> format;    // raw must be said, since any file is one; qcow2 is recognised
    std::optional<std::string> checksum;  // "sha256:<hex>" | "sha512:<hex>"
    std::string work_name;                // unique among those under way; names the temporary file
    // Awaited with the bytes that the temporary file may then have, before it grows to them; empty: whatever the disk
    // has. Its error ends it.
    std::function<boost::asio::awaitable<base::Result<void>>(std::uint64_t bytes)> room = {};
    // Awaited when the blob is known to be good and not yet in its place: whoever keeps records writes it down here, so
    // that a crash leaves no blob without one. Its error ends it.
    std::function<boost::asio::awaitable<base::Result<void>>(Blob)> announce = {};
};

struct ImportProgress {
    std::string phase;  // "inspecting", "copying", "downloading", "waiting to try again", "checking"
    std::uint64_t done = 0;
    std::uint64_t total = 0;  // bytes, 0: not known
};
using OnProgress = std::function<void(const ImportProgress&)>;

class ImageCache {
public:
    ImageCache(std::string directory, Files& files, base::ProcessRunner& processes, Fetcher& fetcher);

    // Makes the directory and clears temporaries that a crash left, but for downloads, which are gone on with.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> open();

    // Copies or reflinks the local file `source` first, then checks the copy (check_image), so that what was checked is
    // what is kept. Errors: not_found (source), invalid_image, checksum_mismatch, insufficient_storage (needed, free).
    // Nothing is left behind on failure or cancellation.
    [[nodiscard]] boost::asio::awaitable<base::Result<Blob>> import(std::string source, TakeIn what,
                                                                    OnProgress progress);
    // The same from the web: `urls` are https://, the first and mirrors of it. Errors: those of Fetcher::fetch, too.
    // What was fetched of it is left behind for the next time, unless it turned out to be worth nothing.
    [[nodiscard]] boost::asio::awaitable<base::Result<Blob>> fetch(std::vector<std::string> urls, TakeIn what,
                                                                   OnProgress progress);
    // What a fetch of that name left behind.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> forget_fetch(std::string work_name);

    [[nodiscard]] boost::asio::awaitable<base::Result<void>> remove(std::string digest, std::string format);
    [[nodiscard]] std::string path_of(const std::string& digest, const std::string& format) const;
    [[nodiscard]] const std::string& directory() const noexcept { return directory_; }

    // Everything of ours in the directory, bytes on disk.
    struct Content {
        struct File {
            std::string digest;  // "sha256:<hex>"
            std::string format;
            std::uint64_t bytes = 0;
        };
        struct Part {  // of a download
            std::string work_name;
            std::uint64_t bytes = 0;
            base::Wall at;  // when it was last begun or gone on with
        };
        std::vector<File> blobs;
        std::vector<Part> parts;
        [[nodiscard]] std::uint64_t bytes() const noexcept;
    };
    [[nodiscard]] boost::asio::awaitable<base::Result<Content>> content();

private:
    [[nodiscard]] std::string part_of(const std::string& work_name) const;

    std::string directory_;
    Files& files_;
    base::ProcessRunner& processes_;
    Fetcher& fetcher_;
};

}  // namespace ghost::storage
