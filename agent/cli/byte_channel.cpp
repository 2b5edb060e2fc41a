#include "agent/cli/byte_channel.hpp"

#include "agent/cli/stream_bytes.hpp"

#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace {

class SocketChannel final : public ByteChannel {
public:
    explicit SocketChannel(net::StreamSocket socket) : socket_(std::move(socket)) {}

    [[nodiscard]] asio::awaitable<base::Result<std::size_t>> read(asio::mutable_buffer room) override {
        return read_some(socket_, room);
    }
    [[nodiscard]] asio::awaitable<bool> write(asio::const_buffer bytes) override { return write_all(socket_, bytes); }
    void end_writing() noexcept override {
        boost::system::error_code gone;
        (void)socket_.shutdown(net::StreamSocket::shutdown_send, gone);
    }

private:
    net::StreamSocket socket_;
};

}  // namespace

std::unique_ptr<ByteChannel> make_channel(net::StreamSocket socket) {
    return std::make_unique<SocketChannel>(std::move(socket));
}

}  // namespace ghost::cli
