// Copying a file with its digest; blocking, for a disk thread.
#pragma once

#include "base/error.hpp"
#include "storage/files.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

namespace ghost::storage {

struct CopyJob {
    std::string from;
    std::string to;
    unsigned mode = 0444;
    bool sha512 = false;
    bool reflink = true;                                                  // try to share blocks first
    std::function<void(std::uint64_t done, std::uint64_t total)> report;  // on this thread, a few times a second
};

// The contract of Files::copy. Looks at `stop` between chunks of 1 MiB.
[[nodiscard]] base::Result<Copied> copy_file(const CopyJob& job, const std::atomic<bool>& stop);

// fsync of the directory that holds `path`, so that the name itself is on disk.
[[nodiscard]] base::Result<void> sync_directory_of(const std::string& path);

}  // namespace ghost::storage
