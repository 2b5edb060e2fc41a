// Tells when the host's way out changed: another network, a cable, a tunnel.
#pragma once

#include "base/error.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <memory>

namespace ghost::net {

class NetworkWatch {
public:
    virtual ~NetworkWatch() = default;

    // True when, since the last call returned, a global address came or went on an interface that isn't a guest's, or a
    // default route of the main table changed, or that can't be told for certain; false when the coroutine was
    // cancelled or the host can't be watched; asked again, it is watched anew, which tells true once it can be. One
    // network that gives way to another is several changes, within a second or so. Never throws for a cancellation, but
    // the coroutine's next co_await will unless it called throw_if_cancelled(false). One caller at a time.
    [[nodiscard]] virtual boost::asio::awaitable<bool> changed() = 0;
};

// Of the network namespace of the calling thread, by rtnetlink. Errors: io_error.
[[nodiscard]] base::Result<std::unique_ptr<NetworkWatch>> make_network_watch(boost::asio::any_io_executor executor);

}  // namespace ghost::net
