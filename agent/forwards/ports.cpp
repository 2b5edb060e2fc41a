#include "agent/forwards/ports.hpp"

#include "agent/forwards/port_holder.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <utility>

namespace ghost::agent {
namespace {

namespace asio = boost::asio;
namespace ip = boost::asio::ip;
using boost::system::error_code;

constexpr int backlog = 1024;

class LocalPorts final : public Ports {
public:
    LocalPorts(asio::any_io_executor executor, storage::Files& files) : executor_(std::move(executor)), files_(files) {}

    Opened<ip::tcp::acceptor> listen_tcp(const ip::tcp::endpoint& at) override {
        ip::tcp::acceptor acceptor{executor_};
        error_code error;
        acceptor.open(at.protocol(), error);
        if (!error) ::fcntl(acceptor.native_handle(), F_SETFD, FD_CLOEXEC);
        // A port whose last connections aren't forgotten yet is free all the same.
        if (!error) acceptor.set_option(asio::socket_base::reuse_address{true}, error);
        if (!error) acceptor.bind(at, error);
        if (!error) acceptor.listen(backlog, error);
        if (!error) acceptor.non_blocking(true, error);
        if (error) return std::unexpected{error};
        return acceptor;
    }

    Opened<ip::udp::socket> bind_udp(const ip::udp::endpoint& at) override {
        ip::udp::socket socket{executor_};
        error_code error;
        socket.open(at.protocol(), error);
        if (!error) ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
        const int on = 1;
        // So that an answer leaves from the address that was asked.
        if (!error && at.address().is_unspecified() && at.address().is_v4())
            ::setsockopt(socket.native_handle(), IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
        if (!error) socket.bind(at, error);
        if (!error) socket.non_blocking(true, error);
        if (error) return std::unexpected{error};
        return socket;
    }

    asio::awaitable<std::string> holder_of(Protocol protocol, ip::address address, std::uint16_t port) override {
        auto holder = co_await files_.make(
            [protocol, address, port]() -> base::Result<std::string> { return port_holder(protocol, address, port); });
        co_return holder ? *std::move(holder) : std::string{"another program"};
    }

private:
    asio::any_io_executor executor_;
    storage::Files& files_;
};

}  // namespace

std::unique_ptr<Ports> make_local_ports(asio::any_io_executor executor, storage::Files& files) {
    return std::make_unique<LocalPorts>(std::move(executor), files);
}

}  // namespace ghost::agent
