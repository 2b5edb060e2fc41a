// Bytes both ways, whatever carries them: a terminal, pipes, or a connection.
#pragma once

#include "base/error.hpp"
#include "net/transport.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>

#include <cstddef>
#include <memory>

namespace ghost::cli {

// A read and a write may be under way at once, each in a coroutine of its own. Those must have called
// throw_if_cancelled(false); a cancelled wait is a failure.
class ByteChannel {
public:
    virtual ~ByteChannel() = default;
    // How many bytes came; 0: there will be no more.
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<std::size_t>> read(boost::asio::mutable_buffer room) = 0;
    // All of them. False: nobody takes them any more.
    [[nodiscard]] virtual boost::asio::awaitable<bool> write(boost::asio::const_buffer bytes) = 0;
    // Nothing more will be written, which the other side sees as the end; reading goes on.
    virtual void end_writing() noexcept = 0;
};

[[nodiscard]] std::unique_ptr<ByteChannel> make_channel(net::StreamSocket socket);

}  // namespace ghost::cli
