#include "agent/vm/missing_files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

asio::awaitable<void> MissingFiles::run() {
    for (;;) {
        std::vector<std::string> ids;
        for (const auto& [id, vm] : vms_.all())
            if (vm.managed && vm.phase == Phase::ready && vm.observed.present) ids.push_back(id);
        if (observer_.synced())
            for (auto& id : ids) co_await look_at(std::move(id));
        co_await observer_.synced_changed().wait_until(clock_, clock_.now() + interval);
    }
}

asio::awaitable<void> MissingFiles::look_at(std::string id) {
    const auto* vm = vms_.find(id);
    if (vm == nullptr) co_return;
    const auto paths = vm->observed.disk_paths;
    auto missing = co_await missing_of(paths);
    vm = vms_.find(id);
    // An operation, or somebody else, may have moved its disks meanwhile.
    if (vm == nullptr || vm->phase != Phase::ready || vm->observed.disk_paths != paths) co_return;
    if (missing == vm->observed.missing_files) co_return;
    if (missing.empty())
        log_.info("the files of a VM's disks are all there again", {{"vm", id}, {"name", vm->name}});
    else
        log_.error("files of a VM's disks are missing",
                   {{"vm", id}, {"name", vm->name}, {"files", fmt::format("{}", fmt::join(missing, ", "))}});
    auto seen = vm->observed;
    seen.missing_files = std::move(missing);
    vms_.observe(id, std::move(seen));
}

asio::awaitable<std::vector<std::string>> MissingFiles::missing_of(std::vector<std::string> paths) {
    std::vector<std::string> missing;
    for (auto& path : paths)
        if (const auto file = co_await files_.stat(path); file && !file->has_value())
            missing.push_back(std::move(path));
    co_return missing;
}

}  // namespace ghost::agent
