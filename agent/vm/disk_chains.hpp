// Which files the disks of domains are, and stand on.
#pragma once

#include "agent/vm/observer.hpp"
#include "base/error.hpp"
#include "storage/files.hpp"
#include "storage/volumes.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/awaitable.hpp>

#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace ghost::agent {

// Files that are known by their names, in whatever folder: a folder may be reached by several paths, and those that are
// asked for, <sha256>.qcow2 and <uuid>-root.qcow2, have names of their own.
class FilesInUse {
public:
    void add(std::string_view path);
    [[nodiscard]] bool contains(std::string_view path) const;

    // Of the first file that can't be looked into: what it stands on isn't known.
    std::optional<base::Error> unknown;

private:
    std::set<std::string, std::less<>> names_;
};

class DiskChains {
public:
    DiskChains(const Observer& observer, virt::Hypervisor& hypervisor, storage::Files& files, storage::Volumes& volumes)
        : observer_(observer), hypervisor_(hypervisor), files_(files), volumes_(volumes) {}

    // Every disk of every domain, of whomever, as it runs and as it is defined, right now, with all that it stands on,
    // as the files' headers say; and what every qcow2 in `directory` stands on, which no domain may have yet, but for
    // `nobodys` (paths). Errors: hypervisor_unavailable while the domains aren't known; the hypervisor's, and those of
    // listing `directory`.
    [[nodiscard]] boost::asio::awaitable<base::Result<FilesInUse>> files_in_use(std::string directory,
                                                                                std::set<std::string> nobodys = {});

private:
    using Followed = std::set<virt::DiskFile>;
    boost::asio::awaitable<base::Result<void>> add_chain(virt::DiskFile disk, FilesInUse& found, Followed& followed);
    boost::asio::awaitable<base::Result<std::optional<virt::DiskFile>>> below(virt::DiskFile disk);

    const Observer& observer_;
    virt::Hypervisor& hypervisor_;
    storage::Files& files_;
    storage::Volumes& volumes_;
};

}  // namespace ghost::agent
