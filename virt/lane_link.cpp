#include "base/backoff.hpp"
#include "virt/lane_core.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace ghost::virt {
namespace {

namespace asio = boost::asio;
using base::Errc;
using base::Result;

// For coroutines that call throw_if_cancelled(false).
asio::awaitable<bool> cancelled() {
    const auto state = co_await asio::this_coro::cancellation_state;
    co_return state.cancelled() != asio::cancellation_type::none;
}

}  // namespace

asio::awaitable<Result<void>> LaneCore::probe() {
    const auto epoch = ++epoch_;
    lost_in_probe_.reset();
    auto connected = std::make_shared<Result<void>>();
    auto ticket = make_ticket(LaneClass::events, {});
    ticket->change = true;
    ticket->probe = true;
    ticket->stalled = [this] { link_failed("libvirt does not answer"); };
    auto tell_lost = [weak = weak_from_this(), mailbox = mailbox_, epoch](std::string reason) {
        mailbox->post([weak, epoch, reason = std::move(reason)] {
            if (const auto core = weak.lock()) core->lost(epoch, reason);
        });
    };
    // An event that is on its way to the loop holds the connection too: let it through, or the loop would be last to
    // let go of the connection, and closing blocks.
    auto say_goodbye = [hooks = hooks_, mailbox = mailbox_](virConnectPtr connection) {
        if (hooks->on_closing) hooks->on_closing(connection);
        mailbox->await_turn();
    };
    ticket->work = [connected, hooks = hooks_, tell_lost = std::move(tell_lost), say_goodbye = std::move(say_goodbye)](
                       Connection& connection, virConnectPtr handle) {
        connection.watch(tell_lost, say_goodbye);
        if (hooks->on_connected) *connected = hooks->on_connected(handle);
    };
    enqueue(ticket, options_.open_limit);
    auto answer = co_await wait(std::move(ticket));
    if (!answer) co_return answer;
    if (!*connected) co_return *connected;
    if (lost_in_probe_) co_return base::fail(Errc::hypervisor_unavailable, *lost_in_probe_);
    co_return Result<void>{};
}

asio::awaitable<void> LaneCore::run() {
    const bool throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    base::Backoff backoff{options_.backoff_min, options_.backoff_max};
    while (!closing_ && !co_await cancelled()) {
        const auto proved = co_await probe();
        if (closing_ || co_await cancelled()) break;
        if (proved) {
            const auto since = clock_.now();
            link_up();
            while (up_ && !closing_ && !co_await cancelled())
                co_await down_.async_wait(asio::as_tuple(asio::use_awaitable));
            if (clock_.now() - since >= options_.backoff_max) {  // it was sound: try again at once
                backoff.reset();
                continue;
            }
        } else {
            link_failed(proved.error().detail);
        }
        if (!closing_ && !co_await cancelled()) co_await clock_.sleep_for(backoff.next(random_));
    }
    co_await asio::this_coro::throw_if_cancelled(throws);
}

void LaneCore::link_up() {
    up_ = true;
    reason_.clear();
    log_.info("hypervisor connected", {{"uri", uri_}});
    if (hooks_->on_link) hooks_->on_link(true, {});
}

void LaneCore::link_failed(const std::string& reason) {
    if (reason == reason_) return;
    reason_ = reason;
    log_.warn("hypervisor not reachable", {{"uri", uri_}, {"reason", reason}});
    if (hooks_->on_link) hooks_->on_link(false, reason);
}

void LaneCore::lost(std::uint64_t epoch, const std::string& reason) {
    if (epoch != epoch_ || closing_) return;  // an older link's
    if (!up_) {
        lost_in_probe_ = reason;
        return;
    }
    up_ = false;
    reason_ = reason;
    log_.warn("hypervisor connection lost", {{"uri", uri_}, {"reason", reason}});
    fail_queued(reason);
    down_.cancel();
    if (hooks_->on_link) hooks_->on_link(false, reason);
}

asio::awaitable<void> LaneCore::close(std::chrono::milliseconds grace) {
    const bool throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    closing_ = true;
    up_ = false;
    down_.cancel();
    fail_queued("the agent is shutting down");
    for (auto& cls : classes_) {
        for (auto& [lane, ticket] : cls.running) static_cast<void>(ticket->turn->recall());  // not begun: needn't
        for (auto& [lane, thread] : cls.threads) thread->stop();
    }

    // Threads end in real time, whatever the clock says.
    const auto until = std::chrono::steady_clock::now() + grace;
    ended_.expires_at(until);
    while (!all_ended() && std::chrono::steady_clock::now() < until)
        co_await ended_.async_wait(asio::as_tuple(asio::use_awaitable));

    mailbox_->close();
    for (std::size_t i = 0; i < lane_classes; ++i) {
        if (classes_[i].threads.empty()) continue;
        log_.warn("hypervisor lanes left behind",
                  {{"lanes", name_of(static_cast<LaneClass>(i))}, {"count", classes_[i].threads.size()}});
        classes_[i].threads.clear();
    }
    for (const auto& [id, ticket] : std::exchange(tickets_, {})) {
        ticket->unwatch.emit(asio::cancellation_type::terminal);
        settle(*ticket, base::fail(Errc::hypervisor_unavailable, "the agent stopped before libvirt answered"));
    }
    co_await asio::this_coro::throw_if_cancelled(throws);
}

}  // namespace ghost::virt
