#include "agent/host/cache_room.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::agent {

boost::asio::awaitable<base::Result<void>> CacheRoom::hold(std::string holder, std::uint64_t bytes, std::string disks) {
    const auto here = co_await files_.space(directory_);
    if (!here) co_return base::fail(here.error());
    const auto there = co_await files_.space(std::move(disks));
    if (!there) co_return base::fail(there.error());
    release(holder);
    co_return here->file_system == there->file_system ? capacity_.hold_disk(holder, bytes)
                                                      : hold_here(holder, bytes, here->free);
}

base::Result<void> CacheRoom::hold_here(const std::string& holder, std::uint64_t bytes, std::uint64_t free) {
    for (const auto& [other, promised] : held_) free -= std::min(free, promised);
    if (bytes > free) {
        const auto gib = [](std::uint64_t n) { return static_cast<double>(n) / static_cast<double>(1ULL << 30); };
        base::Error error{base::Errc::insufficient_storage,
                          fmt::format("{:.1f} GiB are needed on the file system of {} (libvirt.image_cache) and "
                                      "{:.1f} GiB are free",
                                      gib(bytes), directory_, gib(free))};
        base::add_disk_facts(error, bytes, free);
        return base::fail(std::move(error));
    }
    held_[holder] = bytes;
    return {};
}

boost::asio::awaitable<bool> CacheRoom::shares_the_disks_place(std::string disks) {
    const auto here = co_await files_.space(directory_);
    const auto there = co_await files_.space(std::move(disks));
    co_return here&& there && here->file_system == there->file_system;
}

void CacheRoom::release(const std::string& holder) {
    held_.erase(holder);
    capacity_.release_disk(holder);
}

}  // namespace ghost::agent
