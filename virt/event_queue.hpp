// What happened, from libvirt's callbacks to the one coroutine that reads it.
#pragma once

#include "virt/hypervisor.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <cstddef>
#include <deque>

namespace ghost::virt {

// Used on the loop only, from its making to its end.
class EventQueue {
public:
    EventQueue(boost::asio::io_context& context, std::size_t limit);

    // When full, everything but the link's own events gives way to one `overflow`.
    void push(Event event);

    // One reader. Throws operation_aborted when the coroutine is cancelled.
    [[nodiscard]] boost::asio::awaitable<Event> next();

    [[nodiscard]] std::size_t size() const noexcept { return events_.size(); }

private:
    std::size_t limit_;
    std::deque<Event> events_;
    boost::asio::steady_timer arrived_;
};

}  // namespace ghost::virt
