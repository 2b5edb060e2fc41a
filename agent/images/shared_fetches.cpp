#include "agent/images/shared_fetches.hpp"

#include "base/cancelled.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

void SharedFetches::tell(Fetch& fetch, const storage::ImportProgress& progress) {
    fetch.last = progress;
    for (auto* report : fetch.waiters)
        if (*report) (*report)(progress);
}

asio::awaitable<base::Result<void>> SharedFetches::join(std::string key, Work work, Report report) {
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    // One that was given up comes to its end first.
    for (auto it = fetches_.find(key); it != fetches_.end() && it->second->given_up; it = fetches_.find(key)) {
        const auto ending = it->second;
        while (!ending->done) co_await ending->ended.wait();
    }
    auto& slot = fetches_[key];
    const bool first = slot == nullptr;
    if (first) slot = std::make_shared<Fetch>(executor_);
    const auto fetch = slot;
    const auto place = fetch->waiters.insert(fetch->waiters.end(), &report);
    if (first)
        tasks_.spawn("fetch " + key, run(key, fetch, std::move(work)));
    else if (report && !fetch->last.phase.empty())
        report(fetch->last);
    bool cancelled = co_await base::is_cancelled();
    while (!fetch->done && !cancelled) {
        co_await fetch->ended.wait();
        cancelled = co_await base::is_cancelled();
    }
    fetch->waiters.erase(place);
    if (!fetch->done && fetch->waiters.empty()) {
        fetch->given_up = true;
        fetch->stop.emit(asio::cancellation_type::terminal);
        while (!fetch->done) co_await fetch->ended.wait();
    }
    const auto result = fetch->done ? fetch->result : base::fail(base::Errc::cancelled);
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return result;
}

asio::awaitable<void> SharedFetches::run(std::string key, std::shared_ptr<Fetch> fetch, Work work) {
    co_await asio::this_coro::throw_if_cancelled(false);
    if (fetch->given_up)
        work = [](const Report&) -> asio::awaitable<base::Result<void>> {
            co_return base::fail(base::Errc::cancelled);
        };
    const auto report = [fetch](const storage::ImportProgress& progress) { tell(*fetch, progress); };
    auto [error, result] = co_await asio::co_spawn(
        executor_, work(report), asio::bind_cancellation_slot(fetch->stop.slot(), asio::as_tuple(asio::use_awaitable)));
    fetch->result = std::move(result);
    if (error)
        fetch->result = fetch->given_up ? base::Result<void>{base::fail(base::Errc::cancelled)}
                                        : base::fail(base::Errc::internal, "an internal fault while it was fetched");
    fetch->done = true;
    fetches_.erase(key);
    fetch->ended.notify();
    if (error && !fetch->given_up) std::rethrow_exception(error);
}

asio::awaitable<void> SharedFetches::drain() { co_await tasks_.drain(); }

}  // namespace ghost::agent
