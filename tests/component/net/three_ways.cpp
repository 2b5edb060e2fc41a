#include "tests/component/net/three_ways.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <catch2/catch.hpp>

namespace ghost::test {
namespace asio = boost::asio;

net::ServerLimits quick_limits() {
    auto limits = small_limits();
    limits.hang_up_check = std::chrono::milliseconds{5};
    return limits;
}

asio::awaitable<void> pause(std::chrono::milliseconds span) {
    asio::steady_timer timer{co_await asio::this_coro::executor, span};
    co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
}

std::vector<net::Peer> ThreeWays::peers() const {
    return {net::UnixPeer{path}, net::HttpPeer{"127.0.0.1", std::to_string(port)},
            net::HttpsPeer{"127.0.0.1", std::to_string(tls_port), certificates().client("alice")}};
}

void ThreeWays::listen() {
    REQUIRE(server.listen(net::UnixEndpoint{.path = path, .mode = 0600, .group = {}}));
    port = server.listen_tcp();
    tls_port = server.listen_tcp(certificates().server());
}

void ThreeWays::end() {
    release = true;
    server.shut_down(std::chrono::milliseconds{0});
}

}  // namespace ghost::test
