// One server reached in three ways, for tests of what must be the same over all of them.
#pragma once

#include "fakes/scratch_folder.hpp"
#include "net/client.hpp"
#include "tests/component/net/server_fixture.hpp"

#include <boost/asio/awaitable.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace ghost::test {

// Of small_limits(), with those who hung up noticed at once.
[[nodiscard]] net::ServerLimits quick_limits();
[[nodiscard]] boost::asio::awaitable<void> pause(std::chrono::milliseconds span);

// Over a Unix socket, TCP and TLS. Handlers may wait for `release`, which comes at the latest with the end.
class ThreeWays {
public:
    explicit ThreeWays(net::ServerLimits limits) : server(limits) {}
    ThreeWays(const ThreeWays&) = delete;
    ThreeWays& operator=(const ThreeWays&) = delete;

    // In this order; "alice" over TLS.
    [[nodiscard]] std::vector<net::Peer> peers() const;

    fakes::ScratchFolder folder;
    std::string path = folder.path("socket");
    ServerFixture server;
    std::uint16_t port = 0;
    std::uint16_t tls_port = 0;
    std::atomic<bool> release{false};

protected:
    ~ThreeWays() = default;
    // Once the server has its handler.
    void listen();
    // In the destructor of whoever has handlers: they use its members.
    void end();
};

}  // namespace ghost::test
