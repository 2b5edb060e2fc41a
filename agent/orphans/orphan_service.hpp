// Finds orphans and, when asked, deletes them.
#pragma once

#include "agent/operations/operation_service.hpp"
#include "agent/orphans/orphan.hpp"
#include "agent/vm/disk_chains.hpp"
#include "agent/vm/vm_service.hpp"
#include "base/context.hpp"

#include <boost/asio/awaitable.hpp>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

struct OrphanParts {
    const VmIndex& vms;
    VmService& service;
    const ImageService& images;
    OperationService& operations;
    Observer& observer;
    storage::Files& files;
    DiskChains& chains;
    base::Clock& clock;
    base::Log& log;
};

// Where ours would be. Files whose names aren't of our making are never looked at, nor is what is no regular file: the
// consoles' sockets take no room.
struct OrphanPlaces {
    std::string disks;
    std::string consoles;
    std::string images;
};

class OrphanService {
public:
    OrphanService(OrphanParts parts, OrphanPlaces places) : p_(parts), places_(std::move(places)) {}

    void use_disk_directory(std::string path) { places_.disks = std::move(path); }

    // Errors: hypervisor_unavailable while the domains aren't known, for what they use is nobody's orphan; io_error.
    [[nodiscard]] boost::asio::awaitable<base::Result<std::vector<Orphan>>> find();
    // Deletes those that are found now, each looked at once more. Errors: those of find() and of operations.
    [[nodiscard]] boost::asio::awaitable<base::Result<OperationService::Ptr>> purge(base::Context context);
    // Goes on after a crash.
    void recover(const Operation& operation);
    // Looks every few minutes and logs what is new, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> watch();

    [[nodiscard]] std::size_t known() const noexcept { return first_seen_.size(); }  // of the last find()

    static constexpr std::chrono::minutes watch_interval{5};

private:
    boost::asio::awaitable<Outcome> run_purge(OperationControl& control);
    boost::asio::awaitable<base::Result<void>> find_in(std::string directory, std::vector<Orphan>& found,
                                                       std::string (OrphanService::*why)(std::string_view) const);
    boost::asio::awaitable<base::Result<void>> spare_what_is_in_use(std::vector<Orphan>& found);
    [[nodiscard]] std::string why_vm_file(std::string_view name) const;
    [[nodiscard]] std::string why_image_file(std::string_view name) const;
    void note_first_seen(std::vector<Orphan>& found);

    OrphanParts p_;
    OrphanPlaces places_;
    std::map<std::string, base::Wall> first_seen_;  // by path or domain id
};

}  // namespace ghost::agent
