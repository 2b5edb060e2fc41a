// TLS on a connected socket, which OpenSSL itself reads from and writes to: a
// connection that waits holds no buffers. (Asio's own stream keeps some 70 KiB
// for each, whether it is used or not.)
#pragma once

#include "net/tls.hpp"
#include "net/transport.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/system/error_code.hpp>
#include <openssl/ssl.h>

#include <cstddef>
#include <memory>
#include <span>

namespace ghost::net {

// A read and a write may be under way at once. Errors: asio's `eof` (the peer said goodbye), asio::ssl's
// `stream_truncated` (the connection ended without one), the socket's and OpenSSL's own; cancelling the socket ends
// what waits on it with `operation_aborted`, and nothing is lost.
class TlsStream {
public:
    enum class Side : bool { client, server };

    // `socket` outlives it.
    TlsStream(StreamSocket& socket, TlsContext context);
    TlsStream(const TlsStream&) = delete;
    TlsStream& operator=(const TlsStream&) = delete;
    ~TlsStream();

    [[nodiscard]] SSL* native_handle() const noexcept { return ssl_.get(); }

    [[nodiscard]] boost::asio::awaitable<boost::system::error_code> handshake(Side side);
    // At least one byte, and at most what one record holds.
    [[nodiscard]] boost::asio::awaitable<Io> read_some(boost::asio::mutable_buffer room);
    // The same of what is here already; `would_block` when that is nothing.
    [[nodiscard]] Io read_ready(boost::asio::mutable_buffer room) noexcept;
    // As read_ready(), and leaves it there.
    [[nodiscard]] Io peek_ready(boost::asio::mutable_buffer room) noexcept;
    // All of `pieces`, in records as large as TLS has them.
    [[nodiscard]] boost::asio::awaitable<Io> write(std::span<const boost::asio::const_buffer> pieces);
    // Says goodbye and waits for the peer's.
    [[nodiscard]] boost::asio::awaitable<boost::system::error_code> shutdown();

private:
    struct Wire;
    struct Step;
    template <class Call>
    [[nodiscard]] Step step(Call call) noexcept;
    [[nodiscard]] Io ready(int (*take)(SSL*, void*, std::size_t, std::size_t*),
                           boost::asio::mutable_buffer room) noexcept;
    enum class Flow : bool { in, both };
    template <class Call>
    [[nodiscard]] boost::asio::awaitable<Io> carry_through(Call call, Flow flow);
    [[nodiscard]] boost::asio::awaitable<boost::system::error_code> flush();

    StreamSocket& socket_;
    TlsContext context_;
    std::unique_ptr<Wire> wire_;  // what OpenSSL knows of the socket; outlives ssl_
    std::unique_ptr<SSL, decltype(&SSL_free)> ssl_;
    std::size_t unbroken_ = 0;  // bytes since something had to be waited for
};

}  // namespace ghost::net
