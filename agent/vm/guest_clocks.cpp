#include "agent/vm/guest_clocks.hpp"

#include "base/cancelled.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

// What may be otherwise in a moment. That no agent answers mostly isn't: there is none.
bool passes(base::Errc code) {
    using enum base::Errc;
    return code == hypervisor_unavailable || code == hypervisor_error || code == overloaded ||
           code == deadline_exceeded;
}

}  // namespace

asio::awaitable<void> GuestClocks::run() {
    // The workers belong to this coroutine: they end with it.
    co_await asio::this_coro::throw_if_cancelled(false);
    while (!co_await base::is_cancelled()) {
        const auto workers = std::min(at_once, workers_.size() + due_.size());
        while (workers_.size() < workers) workers_.spawn("guests' clocks", work());
        co_await wanted_.wait();
    }
    due_.clear();
    workers_.cancel();
    co_await workers_.drain();
}

void GuestClocks::set_all() {
    due_.clear();
    ++wake_;
    for (const auto& [id, vm] : index_.all())
        if (vm.managed && vm.observed.power == virt::Power::running) due_.push_back({.id = id, .wake = wake_});
    wanted_.notify();
}

asio::awaitable<void> GuestClocks::work() {
    while (!due_.empty()) {
        auto next = std::move(due_.front());
        due_.pop_front();
        if (next.not_before > clock_.now()) co_await clock_.sleep_until(next.not_before);
        co_await set(std::move(next));
    }
}

asio::awaitable<void> GuestClocks::set(Due due) {
    const auto* vm = index_.find(due.id);
    if (vm == nullptr || vm->observed.power != virt::Power::running || due.wake != wake_) co_return;
    const auto name = vm->name;
    const auto done = co_await hypervisor_.set_guest_time(due.id, clock_.wall());
    if (done) {
        log_.debug("the guest's clock is set", {{"vm", due.id}, {"name", name}});
        co_return;
    }
    const auto& error = done.error();
    if (!passes(error.code)) {
        log_.debug("the guest's clock is left as it is", {{"vm", due.id}, {"name", name}, {"error", error.detail}});
        co_return;
    }
    if (++due.failures < tries) {
        due.not_before = clock_.now() + between_tries;
        due_.push_back(std::move(due));
        co_return;
    }
    log_.warn("the guest's clock can't be set", {{"vm", due.id}, {"name", name}, {"error", error.detail}});
}

}  // namespace ghost::agent
