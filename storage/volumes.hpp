// The disks of VMs: qcow2 files made and grown by qemu-img in a child process.
#pragma once

#include "base/error.hpp"
#include "base/process.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <optional>
#include <string>

namespace ghost::storage {

struct VolumeInfo {
    std::string format;
    std::uint64_t virtual_size = 0;  // bytes
    std::string backing_path;        // empty: none
    std::string backing_format;
};

// Errors: validation_failed (a path that isn't absolute, a size of 0), already_exists (a creation overwrites nothing),
// not_found, insufficient_storage (needed, free), invalid_image, state_conflict (another process has it open), io_error
// (qemu-img's words), cancelled, deadline_exceeded. A failed or cancelled creation leaves no file. That an overlay
// isn't smaller than its backing file is the caller's business.
class Volumes {
public:
    Volumes(Files& files, base::ProcessRunner& processes) : files_(files), processes_(processes) {}

    // A qcow2 overlay, mode 0600, over `backing`, whose format is written into it explicitly.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> create_overlay(std::string path, std::string backing,
                                                                            std::string backing_format,
                                                                            std::uint64_t virtual_size);
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> create_blank(std::string path, std::uint64_t virtual_size);
    // Grows only; a smaller size is validation_failed. Not while a domain has it open.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> grow(std::string path, std::uint64_t virtual_size);
    // Safe beside a running domain.
    [[nodiscard]] boost::asio::awaitable<base::Result<VolumeInfo>> inspect(std::string path);
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> remove(std::string path);
    // Virtual size of a disk of any origin, bytes, as its header or its length says: nothing else is opened for it.
    // `format`: "qcow2" or "raw". A block device's can't be told: 0.
    [[nodiscard]] boost::asio::awaitable<base::Result<std::uint64_t>> size_of(std::string path, std::string format);
    // The local file that a qcow2 names as its backing file, and the format it is to be read as. nullopt: none, one
    // that isn't local, or no qcow2. Errors: those of Files; invalid_image: a qcow2 whose header doesn't tell.
    struct Backing {
        std::string path;    // absolute
        std::string format;  // "qcow2" | "raw" | ...; empty: not told
    };
    [[nodiscard]] boost::asio::awaitable<base::Result<std::optional<Backing>>> backing_of(std::string path);

private:
    Files& files_;
    base::ProcessRunner& processes_;
};

}  // namespace ghost::storage
