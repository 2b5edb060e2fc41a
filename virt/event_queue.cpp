#include "virt/event_queue.hpp"

#include "base/clock.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <cassert>
#include <optional>
#include <utility>

namespace ghost::virt {
namespace {

bool is_of_link(const Event& event) noexcept {
    return event.kind == Event::Kind::link_up || event.kind == Event::Kind::link_down;
}

}  // namespace

EventQueue::EventQueue(boost::asio::io_context& context, std::size_t limit)
    : limit_(limit), arrived_(context, base::Instant::max()) {
    assert(limit_ > 1);
}

void EventQueue::push(Event event) {
    if (events_.size() >= limit_) {
        // Of the link only the latest word counts.
        std::optional<Event> of_link;
        for (auto& old : events_)
            if (is_of_link(old)) of_link = std::move(old);
        if (is_of_link(event)) of_link = std::move(event);
        events_.clear();
        if (of_link) events_.push_back(std::move(*of_link));
        events_.push_back({Event::Kind::overflow, {}, "events were lost"});
    } else {
        events_.push_back(std::move(event));
    }
    arrived_.cancel();
}

boost::asio::awaitable<Event> EventQueue::next() {
    while (events_.empty()) {
        arrived_.expires_at(base::Instant::max());
        co_await arrived_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
        const auto state = co_await boost::asio::this_coro::cancellation_state;
        if (events_.empty() && state.cancelled() != boost::asio::cancellation_type::none)
            throw boost::system::system_error{boost::asio::error::operation_aborted};
    }
    auto event = std::move(events_.front());
    events_.pop_front();
    co_return event;
}

}  // namespace ghost::virt
