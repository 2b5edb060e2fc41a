#include "agent/vm/disk_chains.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr int deepest_chain = 64;

}  // namespace

asio::awaitable<base::Result<std::set<std::string>>> DiskChains::files_in_use(std::string directory) {
    if (!observer_.synced())
        co_return base::fail(base::Errc::hypervisor_unavailable,
                             "the hypervisor's domains aren't known, and neither is what their disks stand on");
    std::set<std::string> tops;
    for (const auto& [id, vm] : vms_.all()) tops.insert(vm.observed.disk_paths.begin(), vm.observed.disk_paths.end());
    if (!directory.empty()) {
        const auto names = co_await files_.list(directory);
        if (!names && names.error().code != base::Errc::not_found) co_return base::fail(names.error());
        if (names)
            for (const auto& name : *names)
                if (name.ends_with(".qcow2")) tops.insert(fmt::format("{}/{}", directory, name));
    }
    std::set<std::string> seen;
    for (const auto& top : tops)
        if (auto followed = co_await follow(top, seen); !followed) co_return base::fail(std::move(followed).error());
    co_return seen;
}

asio::awaitable<base::Result<void>> DiskChains::follow(std::string path, std::set<std::string>& seen) {
    for (int depth = 0; depth < deepest_chain && !path.empty(); ++depth) {
        if (!seen.insert(path).second) co_return base::Result<void>{};
        auto backing = co_await volumes_.backing_of(path);
        // A disk that isn't there stands on nothing.
        if (!backing && backing.error().code == base::Errc::not_found) co_return base::Result<void>{};
        if (!backing) co_return base::fail(std::move(backing).error());
        path = std::move(*backing);
    }
    co_return base::Result<void>{};
}

}  // namespace ghost::agent
