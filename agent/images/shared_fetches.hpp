// Work that several wait for and that is done once: whoever asks first begins
// it, the last to lose interest ends it.
#pragma once

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "base/task_group.hpp"
#include "storage/image_cache.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace ghost::agent {

// Loop thread only. Must be drained before it is destroyed.
class SharedFetches {
public:
    using Report = storage::OnProgress;
    using Work = std::function<boost::asio::awaitable<base::Result<void>>(Report report)>;

    SharedFetches(boost::asio::any_io_executor executor, base::Log& log)
        : executor_(executor), tasks_(std::move(executor), log) {}

    // Awaits the work called `key`, which `work` begins when none is under way, and is told of its progress. A
    // cancelled caller gets Errc::cancelled; if it was the only one, the work is cancelled, and has ended then.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> join(std::string key, Work work, Report report);
    [[nodiscard]] bool under_way(std::string_view key) const { return fetches_.contains(key); }
    [[nodiscard]] std::size_t size() const noexcept { return fetches_.size(); }

    // Until nothing is under way.
    [[nodiscard]] boost::asio::awaitable<void> drain();

private:
    struct Fetch {
        explicit Fetch(const boost::asio::any_io_executor& executor) : ended(executor) {}
        std::list<Report*> waiters;
        storage::ImportProgress last;  // what who comes later is told first
        bool done = false;
        bool given_up = false;  // nobody waits any more
        base::Result<void> result;
        base::Notifier ended;
        boost::asio::cancellation_signal stop;
    };

    [[nodiscard]] boost::asio::awaitable<void> run(std::string key, std::shared_ptr<Fetch> fetch, Work work);
    static void tell(Fetch& fetch, const storage::ImportProgress& progress);

    boost::asio::any_io_executor executor_;
    std::map<std::string, std::shared_ptr<Fetch>, std::less<>> fetches_;
    base::TaskGroup tasks_;
};

}  // namespace ghost::agent
