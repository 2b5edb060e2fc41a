// The whole agent with real ports of this machine's loopback, and guests that
// the test speaks for.
#pragma once

#include "component/agent/world.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/json/object.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::tests {

// Where the addresses that guests say they have lead to.
struct GuestAddresses {
    std::map<std::string, boost::asio::ip::tcp::endpoint> tcp;
    std::map<std::string, boost::asio::ip::udp::endpoint> udp;
    std::set<std::string> others;      // that have become somebody else's
    std::vector<std::uint16_t> asked;  // ports of guests, in the order in which they were dialled
};

class ForwardsScene;

// One end of a TCP connection, which the test reads and writes.
class End {
public:
    End(ForwardsScene& scene, boost::asio::ip::tcp::socket socket);

    void send(std::string_view bytes);
    // As much as is taken until nothing more is; of `limit` at most.
    std::size_t send_all_that_fits(std::size_t limit);
    std::string receive(std::size_t bytes);
    // What comes until the other end says that it sends no more.
    std::string receive_all();
    void send_no_more() { socket_.shutdown(boost::asio::socket_base::shutdown_send); }
    // How the connection ends, with what is left in it thrown away.
    boost::system::error_code ends();

private:
    // What is here; nullopt: nothing yet. An end is an error.
    std::optional<std::string> read(std::size_t most, boost::system::error_code& error);

    ForwardsScene* scene_;
    boost::asio::ip::tcp::socket socket_;
};

// Addresses of guests: this machine's loopback has them all.
inline constexpr auto first_address = "127.0.0.11";
inline constexpr auto second_address = "127.0.0.12";

// A guest's port where the test accepts.
class TcpGuest {
public:
    explicit TcpGuest(ForwardsScene& scene, const char* address = first_address);
    [[nodiscard]] boost::asio::ip::tcp::endpoint endpoint() const { return acceptor_.local_endpoint(); }
    End accept();
    [[nodiscard]] bool is_called();

private:
    ForwardsScene* scene_;
    boost::asio::ip::tcp::acceptor acceptor_;
};

// A socket of UDP: a guest's or a client's.
class UdpEnd {
public:
    explicit UdpEnd(ForwardsScene& scene, const char* address = "127.0.0.1");
    [[nodiscard]] boost::asio::ip::udp::endpoint endpoint() const { return socket_.local_endpoint(); }
    void send(std::string_view datagram, const boost::asio::ip::udp::endpoint& to);
    // The next one, and who sent it.
    std::string receive(boost::asio::ip::udp::endpoint& from);
    std::string receive() {
        boost::asio::ip::udp::endpoint from;
        return receive(from);
    }
    [[nodiscard]] bool has_one() const { return socket_.available() > 0; }

private:
    ForwardsScene* scene_;
    boost::asio::ip::udp::socket socket_;
};

class ForwardsScene : public World {
public:
    ForwardsScene();

    // A VM of this name that runs, with this address; its id.
    std::string create(const std::string& name, boost::json::object forwards, const std::string& address);
    void give_address(const std::string& id, const std::string& address);
    // The guest's address, which leads to it from now on.
    std::string lead_to(const TcpGuest& guest);
    std::string lead_to(const UdpEnd& guest);

    End connect(std::uint16_t port);
    // Nobody listens there.
    [[nodiscard]] bool is_refused(std::uint16_t port);
    // "true listening", "false port_taken: web: ..."; empty: there is no such condition.
    [[nodiscard]] std::string forwards_ready(const std::string& vm);
    Reply patch(const std::string& vm, boost::json::object spec);
    // Runs the agent, with time standing still, until it holds.
    void until(const std::function<bool()>& holds);

    GuestAddresses guests;
    std::unique_ptr<agent::Ports> local_ports;
};

// Ports that nobody has.
[[nodiscard]] std::uint16_t free_tcp_port();
[[nodiscard]] std::uint16_t free_udp_port();
// {"host_port", "guest_port", ...}
[[nodiscard]] boost::json::object forward_to(std::uint16_t host_port, std::uint16_t guest_port,
                                             boost::json::object more = {});

}  // namespace ghost::tests
