// One forward of UDP whose guest is slow to be reached.
#include "agent/forwards/open_forward.hpp"
#include "unit/agent/access/scene.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <catch2/catch.hpp>

#include <string>
#include <utility>

using namespace ghost;
namespace asio = boost::asio;
namespace ip = boost::asio::ip;

namespace {

const ip::udp::endpoint anywhere{ip::address_v4::loopback(), 0};

class SlowDialer final : public agent::GuestDialer {
public:
    SlowDialer(const asio::any_io_executor& executor, ip::udp::endpoint guest)
        : reached(executor), guest_(std::move(guest)) {}

    Task<net::StreamSocket> connect(agent::GuestPlace, std::uint16_t, base::Instant) override {
        co_return base::fail(base::Errc::source_unavailable, "nobody is there");
    }
    Task<ip::udp::socket> connect_udp(agent::GuestPlace, std::uint16_t, base::Instant) override {
        co_await reached.wait();
        ip::udp::socket socket{co_await asio::this_coro::executor, ip::udp::v4()};
        socket.connect(guest_);
        co_return std::move(socket);
    }
    bool leads_to(const agent::GuestPlace&, const ip::address&) override { return true; }

    base::Notifier reached;

private:
    ip::udp::endpoint guest_;
};

}  // namespace

TEST_CASE("what waits for a guest that is being reached is bounded by its bytes, too") {
    test::AccessScene scene;
    const auto executor = scene.loop.get_executor();
    ip::udp::socket guest{scene.loop, anywhere};
    guest.non_blocking(true);
    ip::udp::socket client{scene.loop, anywhere};
    ip::udp::socket port{scene.loop, anywhere};
    const auto at = port.local_endpoint();
    SlowDialer dialer{executor, guest.local_endpoint()};
    agent::ForwardsGround ground{.executor = executor,
                                 .index = scene.vms,
                                 .dialer = dialer,
                                 .clock = scene.clock,
                                 .log = scene.log,
                                 .idle_timeout = std::chrono::hours{4},
                                 .room = base::Notifier{executor}};
    const auto forward = agent::forward_udp(ground, {"vm-1", "dns", 53}, std::move(port));

    const std::string large(30'000, 'x');
    for (const auto* const end : {"1", "2", "3", "4"}) {
        client.send_to(asio::buffer(large + end), at);
        scene.settle();
    }
    client.send_to(asio::buffer("small", 5), at);
    scene.settle();
    dialer.reached.notify();
    scene.settle();
    const auto received = [&guest] {
        std::string datagram(64 * 1024, '\0');
        boost::system::error_code none;
        datagram.resize(guest.receive(asio::buffer(datagram), 0, none));
        return datagram;
    };
    CHECK(received() == large + "1");
    CHECK(received() == large + "2");
    CHECK(received() == "small");
    CHECK(received().empty());

    // On the loop, as all that is done to it.
    asio::post(scene.loop, [&forward] { forward->close(); });
    scene.settle();
    scene.tasks.spawn("end", forward->drain());
    scene.settle();
}
