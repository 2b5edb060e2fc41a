#include "virt/connection.hpp"

#include <fmt/format.h>

#include <mutex>
#include <utility>

namespace ghost::virt {
namespace {

using base::Errc;

std::string_view words_for(int reason) noexcept {
    switch (reason) {
        case VIR_CONNECT_CLOSE_REASON_EOF: return "libvirt closed the connection";
        case VIR_CONNECT_CLOSE_REASON_KEEPALIVE: return "libvirt stopped answering keep-alive";
        case VIR_CONNECT_CLOSE_REASON_CLIENT: return "the connection was closed here";
        default: return "the connection to libvirt broke";
    }
}

using Closed = std::function<void(std::string)>;

// Runs on the loop or on whichever thread noticed, with libvirt's locks held.
void connection_closed(virConnectPtr, int reason, void* opaque) {
    (*static_cast<Closed*>(opaque))(std::string{words_for(reason)});
}

}  // namespace

Errc errc_of(int domain, int code) noexcept {
    // A connection that ended under a call reports from the RPC layer: keep-alive as an internal error, a closed
    // socket as a system error. VIR_ERR_RPC there is a message that doesn't fit, and harmless.
    if (domain == VIR_FROM_RPC && code != VIR_ERR_RPC) return Errc::hypervisor_unavailable;
    switch (code) {
        case VIR_ERR_NO_CONNECT:
        case VIR_ERR_INVALID_CONN:
        case VIR_ERR_AUTH_FAILED:
        case VIR_ERR_AUTH_CANCELLED:
        case VIR_ERR_AUTH_UNAVAILABLE: return Errc::hypervisor_unavailable;
        case VIR_ERR_NO_DOMAIN:
        case VIR_ERR_NO_DOMAIN_METADATA:
        case VIR_ERR_NO_DOMAIN_SNAPSHOT:
        case VIR_ERR_NO_DOMAIN_CHECKPOINT:
        case VIR_ERR_NO_DOMAIN_BACKUP:
        case VIR_ERR_NO_NETWORK:
        case VIR_ERR_NO_STORAGE_POOL:
        case VIR_ERR_NO_STORAGE_VOL:
        case VIR_ERR_NO_NODE_DEVICE:
        case VIR_ERR_NO_INTERFACE:
        case VIR_ERR_NO_NWFILTER:
        case VIR_ERR_NO_SECRET: return Errc::not_found;
        case VIR_ERR_DOM_EXIST:
        case VIR_ERR_NETWORK_EXIST:
        case VIR_ERR_STORAGE_VOL_EXIST: return Errc::already_exists;
        case VIR_ERR_OPERATION_INVALID:
        case VIR_ERR_RESOURCE_BUSY:
        case VIR_ERR_OPERATION_TIMEOUT:  // the domain is locked by another job
            return Errc::state_conflict;
        default: return Errc::hypervisor_error;
    }
}

base::Error last_error(std::string_view what) {
    const virErrorPtr error = virGetLastError();
    const int code = error != nullptr ? error->code : VIR_ERR_OK;
    if (code == VIR_ERR_OK) {
        const std::string_view unknown = "libvirt failed without saying why";
        return {Errc::hypervisor_error, what.empty() ? std::string{unknown} : fmt::format("{}: {}", what, unknown)};
    }
    const std::string_view words = error->message != nullptr ? error->message : "libvirt gave no message";
    return {errc_of(error->domain, code), what.empty() ? std::string{words} : fmt::format("{}: {}", what, words)};
}

void prepare_libvirt() {
    static std::once_flag once;
    std::call_once(once, [] {
        virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
        // Its thread-local errors are wild pointers before this. Opening would do it, and fail with the reason.
        static_cast<void>(virInitialize());
    });
}

Connection::Connection(std::string uri, ConnectOptions options) : uri_(std::move(uri)), options_(std::move(options)) {}

Connection::~Connection() { close(); }

base::Result<virConnectPtr> Connection::get(std::uint64_t epoch) {
    if (handle_ && epoch_ != epoch) close();
    if (handle_) {
        if (lost()) return base::fail(Errc::hypervisor_unavailable, "the connection to libvirt was lost");
        return handle_.get();
    }
    prepare_libvirt();
    virResetLastError();
    handle_.reset(options_.open ? options_.open(uri_) : virConnectOpen(uri_.c_str()));
    if (!handle_) {
        auto error = last_error("cannot connect to libvirt");
        error.code = Errc::hypervisor_unavailable;
        return std::unexpected{std::move(error)};
    }
    epoch_ = epoch;
    // Drivers inside this process have no peer to keep alive and say so by failing.
    if (virConnectSetKeepAlive(handle_.get(), options_.keepalive_seconds, options_.keepalive_count) < 0)
        virResetLastError();
    return handle_.get();
}

bool Connection::lost() const noexcept { return handle_ && virConnectIsAlive(handle_.get()) == 0; }

void Connection::watch(std::function<void(std::string reason)> closed, std::function<void(virConnectPtr)> closing) {
    if (!handle_) return;
    closing_ = std::move(closing);
    if (watched_) return;
    // Ours to keep: a driver without a daemon answers 0 and forgets callback and free callback alike.
    closed_ = std::move(closed);
    watched_ = virConnectRegisterCloseCallback(handle_.get(), connection_closed, &closed_, nullptr) == 0;
    if (!watched_) virResetLastError();
}

void Connection::close() noexcept {
    if (!handle_) return;
    if (const auto closing = std::exchange(closing_, nullptr)) closing(handle_.get());
    // Fails when the callback has run already; until then it holds a reference to the connection. It runs under the
    // lock that this takes, so afterwards it can't be running either.
    if (std::exchange(watched_, false)) virConnectUnregisterCloseCallback(handle_.get(), connection_closed);
    handle_.reset();
    virResetLastError();
}

}  // namespace ghost::virt
