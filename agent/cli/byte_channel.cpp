#include "agent/cli/byte_channel.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace {

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);

class SocketChannel final : public ByteChannel {
public:
    explicit SocketChannel(StreamSocket socket) : socket_(std::move(socket)) {}

    [[nodiscard]] asio::awaitable<base::Result<std::size_t>> read(asio::mutable_buffer room) override {
        const auto [fault, bytes] = co_await socket_.async_read_some(room, as_values);
        if (fault == asio::error::eof) co_return std::size_t{0};
        if (fault == asio::error::operation_aborted) co_return base::fail(base::Errc::cancelled);
        if (fault) co_return base::fail(base::Errc::io_error, fault.message());
        co_return bytes;
    }
    [[nodiscard]] asio::awaitable<bool> write(asio::const_buffer bytes) override {
        const auto [fault, written] = co_await asio::async_write(socket_, bytes, as_values);
        co_return !fault;
    }
    void end_writing() noexcept override {
        boost::system::error_code gone;
        (void)socket_.shutdown(StreamSocket::shutdown_send, gone);
    }

private:
    StreamSocket socket_;
};

}  // namespace

std::unique_ptr<ByteChannel> make_channel(StreamSocket socket) {
    return std::make_unique<SocketChannel>(std::move(socket));
}

}  // namespace ghost::cli
