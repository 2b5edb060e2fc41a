// Pictures of VMs' displays, for many who look at once.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/notifier.hpp"
#include "base/task_group.hpp"
#include "storage/files.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <map>
#include <memory>
#include <optional>
#include <string>

namespace ghost::agent {

struct Screenshot {
    virt::Picture picture;
    std::string etag = {};
};

// Of one VM one is taken at a time, and at most one each second; whoever asks meanwhile gets the same. Kept no longer.
class Screenshots {
public:
    static constexpr std::chrono::seconds fresh{1};

    // All of it outlives the screenshots; `files` takes work off the loop.
    Screenshots(boost::asio::any_io_executor executor, virt::Hypervisor& hypervisor, storage::Files& files,
                base::Clock& clock, base::TaskGroup& tasks)
        : executor_(std::move(executor)), hypervisor_(hypervisor), files_(files), clock_(clock), tasks_(tasks) {}

    // Errors: those of Hypervisor::screenshot, overloaded, cancelled.
    [[nodiscard]] boost::asio::awaitable<base::Result<std::shared_ptr<const Screenshot>>> of(std::string vm);

private:
    struct Shot {
        explicit Shot(const boost::asio::any_io_executor& executor) : done(executor) {}
        std::optional<base::Result<std::shared_ptr<const Screenshot>>> result;
        base::Notifier done;
    };
    [[nodiscard]] boost::asio::awaitable<void> take(std::string vm, std::shared_ptr<Shot> shot);

    boost::asio::any_io_executor executor_;
    virt::Hypervisor& hypervisor_;
    storage::Files& files_;
    base::Clock& clock_;
    base::TaskGroup& tasks_;
    std::map<std::string, std::shared_ptr<Shot>, std::less<>> shots_;
};

}  // namespace ghost::agent
