#include "agent/host/io_resumer.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

bool waits_for_room(const Vm& vm) {
    return vm.managed && vm.phase == Phase::ready && vm.spec.power_on && vm.observed.present &&
           vm.observed.power == virt::Power::paused && vm.observed.power_reason == "io_error";
}

bool has_room(const storage::Space& space) {
    constexpr std::uint64_t enough = 1ULL << 30;
    return space.total > 0 && space.free >= std::min(enough, space.total / 50);
}

std::vector<std::string> disk_directories(const Vm& vm) {
    std::set<std::string> directories;
    const auto add = [&](const std::string& path) {
        if (!path.empty()) directories.insert(std::filesystem::path{path}.parent_path().string());
    };
    // A snapshot may have moved them.
    for (const auto& path : vm.observed.disk_paths) add(path);
    if (!directories.empty()) return {directories.begin(), directories.end()};
    add(vm.plan.root_disk);
    for (const auto& [name, path] : vm.plan.disks) add(path);
    return {directories.begin(), directories.end()};
}

asio::awaitable<void> IoResumer::run() {
    // The tries belong to this coroutine: they end with it.
    co_await asio::this_coro::throw_if_cancelled(false);
    do {
        std::erase_if(tried_, [this](const auto& tried) { return tried.second + between_tries <= clock_.now(); });
        if (hypervisor_.link().connected) co_await look();
    } while (co_await clock_.sleep_for(interval));
    tries_.cancel();
    co_await tries_.drain();
}

std::vector<std::string> IoResumer::candidates() const {
    std::vector<std::string> ids;
    for (const auto& [id, vm] : vms_.all())
        if (waits_for_room(vm) && !busy(id) && !tried_.contains(id)) ids.push_back(id);
    return ids;
}

asio::awaitable<void> IoResumer::look() {
    for (const auto& id : candidates()) {
        if (!co_await has_room_for(id)) continue;
        const auto* vm = vms_.find(id);  // measuring took its time
        if (vm == nullptr || !waits_for_room(*vm) || busy(id)) continue;
        tried_.insert_or_assign(id, clock_.now());
        tries_.spawn("resume " + vm->name, resume(id, vm->name));
    }
}

asio::awaitable<bool> IoResumer::has_room_for(std::string id) {
    const auto* vm = vms_.find(id);
    if (vm == nullptr) co_return false;
    const auto directories = disk_directories(*vm);
    for (const auto& directory : directories) {
        const auto space = co_await files_.space(directory);
        if (!space || !has_room(*space)) co_return false;
    }
    co_return !directories.empty();
}

asio::awaitable<void> IoResumer::resume(std::string id, std::string name) {
    log_.warn("a VM stands still since a write to its disk failed; there is room, it is resumed",
              {{"vm", id}, {"name", name}});
    const auto resumed = co_await hypervisor_.resume(id, {});
    if (!resumed) log_.warn("the VM can't be resumed", {{"vm", id}, {"name", name}, {"error", resumed.error().detail}});
}

}  // namespace ghost::agent
