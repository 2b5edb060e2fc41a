#include "agent/host/disk_watch.hpp"

namespace ghost::agent {
namespace asio = boost::asio;

asio::awaitable<base::Result<void>> DiskWatch::measure() {
    const auto space = co_await files_.space(directory_);
    if (!space) co_return base::fail(space.error());
    const auto names = co_await files_.list(directory_);
    if (!names) co_return base::fail(names.error());
    std::uint64_t ours = 0;
    const auto planned = capacity_.planned_disks();
    for (const auto& name : *names) {
        const auto path = directory_ + "/" + name;
        if (!planned.contains(path)) continue;  // other people's, in a pool that is shared
        const auto file = co_await files_.stat(path);
        if (file && *file && (*file)->regular) ours += (*file)->allocated;
    }
    space_ = *space;
    capacity_.set_disk(*space, ours);
    co_return base::Result<void>{};
}

asio::awaitable<void> DiskWatch::run() {
    do {
        const auto measured = co_await measure();
        const auto fault = measured ? std::string{} : measured.error().detail;
        if (!fault.empty() && fault_.empty()) log_.warn("the disk can't be measured", {{"error", fault}});
        fault_ = fault;
    } while (co_await clock_.sleep_for(interval));
}

}  // namespace ghost::agent
