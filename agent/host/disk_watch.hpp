// Measures, in the background, the file system that the disks are on.
#pragma once

#include "agent/host/capacity.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <string>

namespace ghost::agent {

class DiskWatch {
public:
    DiskWatch(storage::Files& files, Capacity& capacity, base::Clock& clock, base::Log& log, std::string directory)
        : files_(files), capacity_(capacity), clock_(clock), log_(log), directory_(std::move(directory)) {}

    void use_directory(std::string directory) { directory_ = std::move(directory); }
    // One measurement, now.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> measure();
    // One every few seconds, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();

    [[nodiscard]] const storage::Space& space() const noexcept { return space_; }
    [[nodiscard]] const std::string& fault() const noexcept { return fault_; }  // of the last measurement, or empty

    static constexpr std::chrono::seconds interval{15};

private:
    storage::Files& files_;
    Capacity& capacity_;
    base::Clock& clock_;
    base::Log& log_;
    std::string directory_;
    storage::Space space_;
    std::string fault_;
};

}  // namespace ghost::agent
