// Runs libvirt's event implementation (its descriptors' watches and timers) on
// the loop.
//
// libvirt's event implementation is process-global, registered once and for
// ever, and its six entry points carry no user pointer: so one EventBridge may
// live at a time. Make it before the first connection and let it outlive the
// last one. It must be destroyed before the io_context, on the loop's thread or
// after the loop ended.
//
// Entry points come from whichever thread is inside libvirt. Callbacks and free
// callbacks run on the loop, a free callback never inside the call that removes.
// What arrives after the bridge is gone does nothing: new watches and timers
// are refused, old ones are never called again nor freed (a thread left behind
// inside libvirt may still use them).
//
// Its timers are real time: libvirt's keep-alive runs on them.
#pragma once

#include <boost/asio/io_context.hpp>

#include <cstddef>
#include <memory>

namespace ghost::virt {

class EventBridge {
public:
    // Throws std::logic_error while another one lives. Silences libvirt's own error output on stderr.
    explicit EventBridge(boost::asio::io_context& context);
    ~EventBridge();
    EventBridge(const EventBridge&) = delete;
    EventBridge& operator=(const EventBridge&) = delete;

    // Watches and timers whose free callback has not run yet. With every connection closed, running the loop takes
    // it to 0.
    [[nodiscard]] std::size_t live() const noexcept;

private:
    class Registry;
    std::shared_ptr<Registry> registry_;
};

}  // namespace ghost::virt
