// Owning handles for libvirt's objects, its errors as ours, and the connection
// of one lane.
//
// libvirt 9.0 (Debian 12) lacks the fix for CVE-2024-4418: two threads sharing a
// connection crash or hang when the daemon stalls. So a connection, and every
// handle got from it, stays on the thread that opened it.
#pragma once

#include "base/error.hpp"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace ghost::virt {

template <auto Free>
struct FreeBy {
    template <class T>
    void operator()(T* object) const noexcept {
        Free(object);
    }
};
// What libvirt allocates with malloc: strings and lists, whose elements are freed by themselves.
struct FreeMalloced {
    template <class T>
    void operator()(T* object) const noexcept {
        std::free(static_cast<void*>(object));
    }
};
using ConnectPtr = std::unique_ptr<virConnect, FreeBy<virConnectClose>>;
using DomainPtr = std::unique_ptr<virDomain, FreeBy<virDomainFree>>;
using NetworkPtr = std::unique_ptr<virNetwork, FreeBy<virNetworkFree>>;
using StoragePoolPtr = std::unique_ptr<virStoragePool, FreeBy<virStoragePoolFree>>;
using VolumePtr = std::unique_ptr<virStorageVol, FreeBy<virStorageVolFree>>;
// Strings libvirt allocates for the caller (XML, metadata).
using CharPtr = std::unique_ptr<char, FreeMalloced>;

// libvirt's error numbers as a code of ours. `domain` is a virErrorDomain (who reported it), `code` a virErrorNumber.
[[nodiscard]] base::Errc errc_of(int domain, int code) noexcept;

// The calling thread's last libvirt error; call it on the thread whose call failed, before the next libvirt call.
// `what`, when given, goes in front: "cannot start domain: ...".
[[nodiscard]] base::Error last_error(std::string_view what = {});

// Initialises libvirt and keeps it from writing every error to stderr. Before any other call of it; process-wide,
// idempotent.
void prepare_libvirt();

struct ConnectOptions {
    // Keep-alive of remote connections: a peer silent for seconds * (count + 1) is lost. Needs an event loop.
    int keepalive_seconds = 5;
    unsigned keepalive_count = 3;
    // How a connection is opened; empty: virConnectOpen. For tests. nullptr: failed, the reason is libvirt's last
    // error.
    std::function<virConnectPtr(const std::string& uri)> open = {};
};

// One lane's connection: opened when first needed, used and closed by one thread only.
class Connection {
public:
    Connection(std::string uri, ConnectOptions options);
    ~Connection();  // closes; may block like close()
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    // The connection of link number `epoch`: one of an older link is closed first, then a new one is opened. May
    // block without limit while the daemon is stopped. Errors: hypervisor_unavailable; lost() tells whether it was a
    // connection of this very epoch that died while idle (it is not reopened: the link has to be proved first).
    [[nodiscard]] base::Result<virConnectPtr> get(std::uint64_t epoch);

    // It was opened and has died since. Doesn't ask the daemon.
    [[nodiscard]] bool lost() const noexcept;

    // Calls `closed` (from any thread, at most once for each connection) when the connection that is open now dies,
    // and `closing`, on this thread, right before it is closed. Drivers without a daemon never die.
    void watch(std::function<void(std::string reason)> closed, std::function<void(virConnectPtr)> closing);

    // Closes it if it is open. Blocks until the daemon answers or keep-alive gives up.
    void close() noexcept;

private:
    std::string uri_;
    ConnectOptions options_;
    ConnectPtr handle_;
    std::uint64_t epoch_ = 0;
    bool watched_ = false;
    std::function<void(std::string)> closed_;  // stays in place while watched_
    std::function<void(virConnectPtr)> closing_;
};

}  // namespace ghost::virt
