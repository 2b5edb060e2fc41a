// Which files the disks of domains are, and stand on.
#pragma once

#include "agent/vm/observer.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/error.hpp"
#include "storage/files.hpp"
#include "storage/volumes.hpp"

#include <boost/asio/awaitable.hpp>

#include <set>
#include <string>

namespace ghost::agent {

class DiskChains {
public:
    DiskChains(const VmIndex& vms, const Observer& observer, storage::Files& files, storage::Volumes& volumes)
        : vms_(vms), observer_(observer), files_(files), volumes_(volumes) {}

    // Every disk of every domain, of whomever, and of every qcow2 in `directory` that no domain has (yet), with all
    // that they stand on, as their headers say. Errors: hypervisor_unavailable while the domains aren't known; those of
    // Files where a chain can't be read: what it stands on isn't known then.
    [[nodiscard]] boost::asio::awaitable<base::Result<std::set<std::string>>> files_in_use(std::string directory);

private:
    boost::asio::awaitable<base::Result<void>> follow(std::string path, std::set<std::string>& seen);

    const VmIndex& vms_;
    const Observer& observer_;
    storage::Files& files_;
    storage::Volumes& volumes_;
};

}  // namespace ghost::agent
