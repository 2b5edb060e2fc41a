// Between two networks of the test's own, with ip(8).
#include "net/neighbours.hpp"

#include "tests/component/net/own_network.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/udp.hpp>
#include <catch2/catch.hpp>

#include <chrono>
#include <optional>
#include <string>
#include <thread>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace asio = boost::asio;

TEST_CASE("the kernel's neighbour is known once something was sent to it") {
    in_own_network([] {
        // The bridge is the host's side; the other end of the cable answers as a guest does, in a network of its own.
        ip("link add name br0 type bridge");
        ip("link set br0 up");
        ip("addr add 192.168.7.1/24 dev br0");
        ip("link add tap0 type veth peer name eth0 address 52:54:00:0a:0b:0c");
        ip("link set tap0 master br0");
        ip("link set tap0 up");
        const OtherNetwork guest;
        ip("link set eth0 netns " + guest.id());
        guest.run([] {
            ip("addr add 192.168.7.10/24 dev eth0");
            ip("link set eth0 up");
        });

        const auto address = asio::ip::make_address("192.168.7.10");
        CHECK_FALSE(net::link_address_of(address));
        asio::io_context loop;
        asio::ip::udp::socket socket{loop, asio::ip::udp::v4()};
        std::optional<std::string> found;
        for (int i = 0; i < 500 && !found; ++i) {
            boost::system::error_code ignored;
            socket.send_to(asio::buffer("", 0), {address, 9}, 0, ignored);
            std::this_thread::sleep_for(10ms);
            found = net::link_address_of(address);
        }
        CHECK(found == "52:54:00:0a:0b:0c");
        CHECK_FALSE(net::is_own_address(address));
        CHECK(net::is_on_link(address));
        CHECK_FALSE(net::is_on_link(asio::ip::make_address("192.168.8.10")));
        ip("route add default via 192.168.7.254");
        CHECK_FALSE(net::is_on_link(asio::ip::make_address("192.168.8.10")));
        CHECK(net::is_own_address(asio::ip::make_address("192.168.7.1")));
        CHECK_FALSE(net::link_address_of(asio::ip::make_address("192.168.7.1")));
        CHECK_FALSE(net::link_address_of(asio::ip::make_address("192.168.7.11")));
    });
}
