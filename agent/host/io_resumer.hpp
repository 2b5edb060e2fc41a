// Guests whose disk had no room stand still at the write that failed. Once
// there is room again they go on by themselves.
#pragma once

#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/task_group.hpp"
#include "storage/files.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ghost::agent {

// Whether this VM stands still by a failed write and not by anybody's wish. libvirt gives one reason for all failed
// writes: a disk that is broken and not full stops its guest again at once.
[[nodiscard]] bool waits_for_room(const Vm& vm);
// Whether so much is free that a guest gets somewhere: 1 GiB, or 2 % of a file system that is small. With less it would
// stop again within seconds, over and over.
[[nodiscard]] bool has_room(const storage::Space& space);
// The directories that its disks are in.
[[nodiscard]] std::vector<std::string> disk_directories(const Vm& vm);

// Loop thread only.
class IoResumer {
public:
    IoResumer(const boost::asio::any_io_executor& executor, virt::Hypervisor& hypervisor, const VmIndex& vms,
              storage::Files& files, base::Clock& clock, base::Log& log)
        : hypervisor_(hypervisor), vms_(vms), files_(files), clock_(clock), log_(log), tries_(executor, log) {}

    // Looks every few seconds, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();

    // VMs that an operation is busy with are left to it.
    std::function<bool(const std::string& id)> busy = [](const std::string&) { return false; };

    static constexpr std::chrono::seconds interval{5};
    static constexpr std::chrono::minutes between_tries{1};  // of one VM

private:
    [[nodiscard]] std::vector<std::string> candidates() const;
    boost::asio::awaitable<void> look();
    boost::asio::awaitable<bool> has_room_for(std::string id);
    boost::asio::awaitable<void> resume(std::string id, std::string name);

    virt::Hypervisor& hypervisor_;
    const VmIndex& vms_;
    storage::Files& files_;
    base::Clock& clock_;
    base::Log& log_;
    base::TaskGroup tries_;
    std::map<std::string, base::Instant> tried_;  // when last
};

}  // namespace ghost::agent
