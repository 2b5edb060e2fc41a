// Room for images, wherever their folder is: on the disks' file system, of which
// the owner keeps a share, or on one of its own.
#pragma once

#include "agent/host/capacity.hpp"
#include "base/error.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <map>
#include <string>

namespace ghost::agent {

// Loop thread only.
class CacheRoom {
public:
    CacheRoom(storage::Files& files, Capacity& capacity, std::string directory)
        : files_(files), capacity_(capacity), directory_(std::move(directory)) {}

    // Whether so many bytes more may be written there: promised to `holder` until it is released; asking again replaces
    // what it holds. `disks` is the folder of the disks. Errors: insufficient_storage (needed, free), and those of
    // Files.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> hold(std::string holder, std::uint64_t bytes,
                                                                  std::string disks);
    void release(const std::string& holder);
    // Whether it is on the file system of `disks`; false where that can't be told.
    [[nodiscard]] boost::asio::awaitable<bool> shares_the_disks_place(std::string disks);

private:
    [[nodiscard]] base::Result<void> hold_here(const std::string& holder, std::uint64_t bytes, std::uint64_t free);

    storage::Files& files_;
    Capacity& capacity_;
    std::string directory_;
    std::map<std::string, std::uint64_t> held_;  // bytes of a file system of its own
};

}  // namespace ghost::agent
