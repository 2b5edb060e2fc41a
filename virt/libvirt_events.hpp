// Subscribes a connection to libvirt's events and turns them into ours.
#pragma once

#include "base/error.hpp"
#include "virt/event_queue.hpp"

#include <libvirt/libvirt.h>

#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace ghost::virt {

// subscribe() and unsubscribe() run on the thread that owns the connection; the callbacks run on the loop, where they
// copy what happened into the queue and make no libvirt call. Once the queue is gone they do nothing. A connection
// whose lane was left behind may be held beside its successor.
class LibvirtEvents {
public:
    explicit LibvirtEvents(std::weak_ptr<EventQueue> queue) : queue_(std::move(queue)) {}

    // Errors: hypervisor_error, hypervisor_unavailable. Kinds of events that a driver doesn't know are left out.
    [[nodiscard]] base::Result<void> subscribe(virConnectPtr connection);
    // `connection` may be dead.
    void unsubscribe(virConnectPtr connection);

private:
    struct Subscriptions {
        std::vector<int> domain;
        std::vector<int> network;
    };
    std::weak_ptr<EventQueue> queue_;
    std::mutex mutex_;
    std::map<virConnectPtr, Subscriptions> held_;
};

}  // namespace ghost::virt
