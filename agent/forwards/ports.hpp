// This host's ports as forwards have them: a seam, so that an agent in memory
// has none.
#pragma once

#include "agent/vm/vm.hpp"
#include "storage/files.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/system/error_code.hpp>

#include <cstdint>
#include <expected>
#include <memory>
#include <string>

namespace ghost::agent {

class Ports {
public:
    template <class T>
    using Opened = std::expected<T, boost::system::error_code>;
    virtual ~Ports() = default;

    // Listening, non-blocking, closed on exec.
    [[nodiscard]] virtual Opened<boost::asio::ip::tcp::acceptor> listen_tcp(
        const boost::asio::ip::tcp::endpoint& at) = 0;
    [[nodiscard]] virtual Opened<boost::asio::ip::udp::socket> bind_udp(const boost::asio::ip::udp::endpoint& at) = 0;
    // Who has a port that is taken, as a sentence goes on: "nginx (pid 123)", "another program".
    [[nodiscard]] virtual boost::asio::awaitable<std::string> holder_of(Protocol protocol,
                                                                        boost::asio::ip::address address,
                                                                        std::uint16_t port) = 0;
};

// The machine's. `files` outlives them: what has to be looked up is looked up there, off the loop.
[[nodiscard]] std::unique_ptr<Ports> make_local_ports(boost::asio::any_io_executor executor, storage::Files& files);

}  // namespace ghost::agent
