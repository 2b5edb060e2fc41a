#include "virt/libvirt_events.hpp"

#include "virt/connection.hpp"
#include "virt/domain_state.hpp"

#include <array>
#include <string>
#include <string_view>
#include <utility>

namespace ghost::virt {
namespace {

using base::Result;
using Queue = std::weak_ptr<EventQueue>;

std::string uuid_of(virDomainPtr domain) {
    std::array<char, VIR_UUID_STRING_BUFLEN> text{};  // from the handle: asks nobody
    virDomainGetUUIDString(domain, text.data());
    return text.data();
}

void tell(void* opaque, Event::Kind kind, std::string uuid, std::string_view what) {
    if (const auto queue = static_cast<Queue*>(opaque)->lock()) queue->push({kind, std::move(uuid), std::string{what}});
}

void tell(void* opaque, virDomainPtr domain, std::string_view what) {
    tell(opaque, Event::Kind::domain, uuid_of(domain), what);
}

void free_queue(void* opaque) { delete static_cast<Queue*>(opaque); }

// ---- libvirt's callbacks, one signature each

int on_lifecycle(virConnectPtr, virDomainPtr domain, int event, int detail, void* opaque) {
    tell(opaque, domain, lifecycle_word(event, detail));
    return 0;
}
void on_reboot(virConnectPtr, virDomainPtr domain, void* opaque) { tell(opaque, domain, "rebooted"); }
void on_io_error(virConnectPtr, virDomainPtr domain, const char*, const char*, int, void* opaque) {
    tell(opaque, domain, "io_error");
}
void on_agent(virConnectPtr, virDomainPtr domain, int state, int, void* opaque) {
    tell(opaque, domain,
         state == VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED ? "agent_connected" : "agent_disconnected");
}
void on_metadata(virConnectPtr, virDomainPtr domain, int, const char*, void* opaque) {
    tell(opaque, domain, "metadata_changed");
}
void on_device_added(virConnectPtr, virDomainPtr domain, const char*, void* opaque) {
    tell(opaque, domain, "device_added");
}
void on_device_removed(virConnectPtr, virDomainPtr domain, const char*, void* opaque) {
    tell(opaque, domain, "device_removed");
}

std::string_view network_word(int event) noexcept {
    switch (event) {
        case VIR_NETWORK_EVENT_DEFINED: return "defined";
        case VIR_NETWORK_EVENT_UNDEFINED: return "undefined";
        case VIR_NETWORK_EVENT_STARTED: return "started";
        case VIR_NETWORK_EVENT_STOPPED: return "stopped";
        default: return "changed";
    }
}
void on_network(virConnectPtr, virNetworkPtr network, int event, int, void* opaque) {
    tell(opaque, Event::Kind::network, virNetworkGetName(network), network_word(event));
}

// libvirt takes every callback as one type and calls it as the type its event has. By way of void(), which compilers
// take for "any function".
template <class Generic, class Callback>
Generic as_generic(Callback* callback) noexcept {
    return reinterpret_cast<Generic>(reinterpret_cast<void (*)()>(callback));
}

struct DomainEvent {
    int id;
    virConnectDomainEventGenericCallback callback;
};
const std::array domain_events{
    DomainEvent{VIR_DOMAIN_EVENT_ID_LIFECYCLE, as_generic<virConnectDomainEventGenericCallback>(on_lifecycle)},
    DomainEvent{VIR_DOMAIN_EVENT_ID_REBOOT, as_generic<virConnectDomainEventGenericCallback>(on_reboot)},
    DomainEvent{VIR_DOMAIN_EVENT_ID_IO_ERROR, as_generic<virConnectDomainEventGenericCallback>(on_io_error)},
    DomainEvent{VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, as_generic<virConnectDomainEventGenericCallback>(on_agent)},
    DomainEvent{VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, as_generic<virConnectDomainEventGenericCallback>(on_metadata)},
    DomainEvent{VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, as_generic<virConnectDomainEventGenericCallback>(on_device_added)},
    DomainEvent{VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
                as_generic<virConnectDomainEventGenericCallback>(on_device_removed)},
};

// After a failure that is no lack of support.
bool fatal(int id) { return id < 0 && virGetLastErrorCode() != VIR_ERR_NO_SUPPORT; }

}  // namespace

Result<void> LibvirtEvents::subscribe(virConnectPtr connection) {
    Subscriptions made;
    const auto keep = [this, connection, &made] {
        const std::scoped_lock lock{mutex_};
        held_.insert_or_assign(connection, std::move(made));
    };
    for (const auto& event : domain_events) {
        auto opaque = std::make_unique<Queue>(queue_);
        const int id =
            virConnectDomainEventRegisterAny(connection, nullptr, event.id, event.callback, opaque.get(), free_queue);
        if (id >= 0) {
            static_cast<void>(opaque.release());  // libvirt's now: free_queue() gets it back
            made.domain.push_back(id);
        } else if (event.id == VIR_DOMAIN_EVENT_ID_LIFECYCLE || fatal(id)) {
            auto error = last_error("cannot subscribe to domain events");
            keep();
            unsubscribe(connection);
            return base::fail(std::move(error));
        }
    }
    auto opaque = std::make_unique<Queue>(queue_);
    const int id = virConnectNetworkEventRegisterAny(connection, nullptr, VIR_NETWORK_EVENT_ID_LIFECYCLE,
                                                     as_generic<virConnectNetworkEventGenericCallback>(on_network),
                                                     opaque.get(), free_queue);
    if (id >= 0) {
        static_cast<void>(opaque.release());
        made.network.push_back(id);
    } else if (fatal(id)) {
        auto error = last_error("cannot subscribe to network events");
        keep();
        unsubscribe(connection);
        return base::fail(std::move(error));
    }
    keep();
    return {};
}

void LibvirtEvents::unsubscribe(virConnectPtr connection) {
    Subscriptions gone;
    {
        const std::scoped_lock lock{mutex_};
        auto node = held_.extract(connection);
        if (node.empty()) return;
        gone = std::move(node.mapped());
    }
    for (const int id : gone.domain) virConnectDomainEventDeregisterAny(connection, id);
    for (const int id : gone.network) virConnectNetworkEventDeregisterAny(connection, id);
}

}  // namespace ghost::virt
