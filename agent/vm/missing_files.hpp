// Whether the files that VMs' disks are on are there: libvirt tells only when
// a VM is started.
#pragma once

#include "agent/vm/observer.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <string>
#include <vector>

namespace ghost::agent {

// Loop thread only.
class MissingFiles {
public:
    MissingFiles(VmIndex& vms, Observer& observer, storage::Files& files, base::Clock& clock, base::Log& log)
        : vms_(vms), observer_(observer), files_(files), clock_(clock), log_(log) {}

    // Looks after each connection and every few minutes, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();

    static constexpr std::chrono::minutes interval{5};

private:
    boost::asio::awaitable<void> look_at(std::string id);
    // Those that aren't there; one that can't be looked at is taken to be there.
    [[nodiscard]] boost::asio::awaitable<std::vector<std::string>> missing_of(std::vector<std::string> paths);

    VmIndex& vms_;
    Observer& observer_;
    storage::Files& files_;
    base::Clock& clock_;
    base::Log& log_;
};

}  // namespace ghost::agent
