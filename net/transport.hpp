// One connection's bytes, whatever carries them: plain or TLS over TCP or a
// Unix socket. Every wait has a deadline. All of it runs on the loop.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "net/tls.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/system/error_code.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace ghost::net {

using StreamSocket = boost::asio::generic::stream_protocol::socket;

// How a read or a write ended. `bytes` were moved even when `error` is set.
struct Io {
    boost::system::error_code error = {};
    std::size_t bytes = 0;
    bool timed_out = false;  // the deadline passed, or interrupt() was called; the connection may still be written to

    [[nodiscard]] explicit operator bool() const noexcept { return !error && !timed_out; }
};

// One operation at a time; but a read and a write may be under way at once when neither has a deadline (`never`).
// Awaiting coroutines keep the transport alive.
class Transport {
public:
    static constexpr base::Instant never = base::Instant::max();
    virtual ~Transport() = default;

    // TLS's, or nothing on a plain connection; the fault is a sentence: "certificate has expired". When it is the
    // peer's certificate that is wrong, the fact `certificate` says in what way; when it refused ours,
    // `certificate_refused` has the alert's name.
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<void>> handshake(base::Instant deadline) = 0;
    [[nodiscard]] virtual boost::asio::awaitable<Io> read_some(boost::asio::mutable_buffer room,
                                                               base::Instant deadline) = 0;
    // What more is here already, without a wait; 0 as well when that ended in a fault, which the next read_some tells.
    [[nodiscard]] virtual std::size_t read_ready(boost::asio::mutable_buffer) noexcept { return 0; }
    // All of `pieces`, one after the other. After a timeout the connection is of no more use.
    [[nodiscard]] virtual boost::asio::awaitable<Io> write(std::span<const boost::asio::const_buffer> pieces,
                                                           base::Instant deadline) = 0;
    [[nodiscard]] boost::asio::awaitable<Io> write(boost::asio::const_buffer bytes, base::Instant deadline) {
        co_return co_await write(std::span<const boost::asio::const_buffer>{&bytes, 1}, deadline);
    }
    // Says goodbye so that what was written arrives: ends our direction, then reads and drops what the peer still
    // sends (a bounded amount), since closing with unread input would reset the connection under the answer.
    [[nodiscard]] virtual boost::asio::awaitable<void> finish(base::Instant deadline) = 0;

    // Ends the operation that is under way as if its deadline had passed; nothing when there is none.
    virtual void interrupt() noexcept = 0;
    // Brings its deadline forward; nothing when there is none, or it is sooner.
    virtual void hurry(base::Instant deadline) noexcept = 0;
    virtual void abort() noexcept = 0;  // closes at once; what is under way fails

    // The other side sends no more: it has closed, or at least half of it.
    [[nodiscard]] virtual bool hung_up() const noexcept = 0;
    // The other side has ended the connection or said something unasked for: not to be used for another request.
    [[nodiscard]] virtual bool stale() const noexcept = 0;
    // What was sent has long not been acknowledged, however often it was repeated: the other side, or the way to it, is
    // gone. One that only doesn't read does acknowledge.
    [[nodiscard]] virtual bool lost() const noexcept { return false; }
    // Who the verified certificate of the peer names; nullopt without one.
    [[nodiscard]] virtual std::optional<std::string> certificate_name() const = 0;
};

// Has the system look now and then whether the other side of an idle TCP connection is still there.
void keep_alive(StreamSocket& socket) noexcept;

// `tls` empty: plain.
[[nodiscard]] std::unique_ptr<Transport> make_server_transport(StreamSocket socket, TlsContext tls);
// `host` is sent as SNI and must be named by the server's certificate. Only looked at with `tls`.
[[nodiscard]] std::unique_ptr<Transport> make_client_transport(StreamSocket socket, TlsContext tls, std::string host);

}  // namespace ghost::net
