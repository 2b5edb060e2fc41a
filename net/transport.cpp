#include "net/transport.hpp"

#include "net/peer.hpp"
#include "net/tls_stream.hpp"
#include "net/watchdog.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cassert>

namespace ghost::net {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t linger_bytes = 8 * 1024 * 1024;
constexpr unsigned lost_after_ms = 120'000;  // without an acknowledgement
constexpr int keep_idle_s = 60;
constexpr int keep_interval_s = 15;
constexpr int keep_count = 4;

// With SNI and the name to verify; false when OpenSSL refuses the name.
bool expect_host(SSL* ssl, const std::string& host) {
    error_code not_an_address;
    asio::ip::make_address(host, not_an_address);
    if (!not_an_address) return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host.c_str()) == 1 &&
           SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                    // OpenSSL's own macro casts the same const away.
                    const_cast<char*>(host.c_str())) == 1;
}

class SocketTransport final : public Transport {
public:
    SocketTransport(StreamSocket socket, TlsContext tls, TlsStream::Side side, std::string host)
        : socket_(std::move(socket)), side_(side), host_(std::move(host)), watchdog_(socket_) {
        if (tls) tls_.emplace(socket_, std::move(tls));
    }

    asio::awaitable<base::Result<void>> handshake(base::Instant deadline) override {
        if (!tls_) co_return base::Result<void>{};
        if (!host_.empty() && !expect_host(tls_->native_handle(), host_))
            co_return base::fail(base::Errc::source_unavailable, "not a host name: " + host_);
        const Watchdog<StreamSocket>::Guard guard{watchdog_, deadline};
        const auto error = co_await tls_->handshake(side_);
        if (!error && !guard.expired()) {
            established_ = true;
            co_return base::Result<void>{};
        }
        if (guard.expired()) co_return base::fail(base::Errc::deadline_exceeded, "the TLS handshake took too long");
        if (error == asio::error::operation_aborted) co_return base::fail(base::Errc::cancelled);
        co_return base::fail(rejected(error));
    }

    asio::awaitable<Io> read_some(asio::mutable_buffer room, base::Instant deadline) override {
        assert(room.size() > 0);
        std::optional<Watchdog<StreamSocket>::Guard> guard;
        if (deadline != never) guard.emplace(watchdog_, deadline);
        Io io;
        reading_ = true;
        if (tls_) {
            io = co_await tls_->read_some(room);
        } else {
            const auto [error, bytes] = co_await socket_.async_read_some(room, quiet);
            io = {error, bytes, false};
        }
        reading_ = false;
        io.timed_out = io.error == asio::error::operation_aborted && guard && guard->expired();
        co_return io;
    }

    // A TLS stream gives one record at a time, however many have come.
    std::size_t read_ready(asio::mutable_buffer room) noexcept override {
        std::size_t total = 0;
        for (Io io; established_ && io && room.size() > 0;) {
            io = tls_->read_ready(room);
            total += io.bytes;
            room += io.bytes;
        }
        return total;
    }

    asio::awaitable<Io> write(std::span<const asio::const_buffer> pieces, base::Instant deadline) override {
        std::optional<Watchdog<StreamSocket>::Guard> guard;
        if (deadline != never) guard.emplace(watchdog_, deadline);
        Io io;
        if (tls_) {
            io = co_await tls_->write(pieces);
            if (io.error && io.error != asio::error::operation_aborted && !reading_)
                io.error = said_before_closing(io.error);
        } else {
            const auto [error, count] = co_await asio::async_write(socket_, pieces, quiet);
            io = {error, count, false};
        }
        io.timed_out = io.error == asio::error::operation_aborted && guard && guard->expired();
        co_return io;
    }

    asio::awaitable<void> finish(base::Instant deadline) override {
        const Watchdog<StreamSocket>::Guard guard{watchdog_, deadline};
        // Whether the peer says goodbye as well is its affair.
        if (established_) static_cast<void>(co_await tls_->shutdown());
        error_code error;
        socket_.shutdown(asio::socket_base::shutdown_send, error);
        std::array<char, 16 * 1024> dropped;
        for (std::size_t total = 0; !error && !guard.expired() && total < linger_bytes;) {
            const auto [failed, bytes] = co_await socket_.async_read_some(asio::buffer(dropped), quiet);
            error = failed;
            total += bytes;
        }
        abort();
    }

    void interrupt() noexcept override { watchdog_.expire_now(); }
    void hurry(base::Instant deadline) noexcept override { watchdog_.hurry(deadline); }

    void abort() noexcept override {
        error_code ignored;
        socket_.close(ignored);
    }

    bool hung_up() const noexcept override { return !socket_.is_open() || (pending_events() & gone_events) != 0; }

    bool stale() const noexcept override {
        if (!socket_.is_open()) return true;
        const auto events = pending_events();
        // A TLS server may leave session tickets to be read; bytes on an idle plain connection mean nothing good.
        return (events & gone_events) != 0 || (events != 0 && !tls_);
    }

    bool lost() const noexcept override {
        tcp_info info{};
        socklen_t size = sizeof info;
        // asio gives the handle only to those who could change it.
        const int fd = const_cast<StreamSocket&>(socket_).native_handle();
        if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;  // a Unix socket
        // Of a window that stays shut one probe may be on its way.
        return info.tcpi_last_ack_recv >= lost_after_ms && (info.tcpi_retransmits > 0 || info.tcpi_probes > 1);
    }

    std::optional<std::string> certificate_name() const override {
        if (!established_) return std::nullopt;
        SSL* ssl = tls_->native_handle();
        const X509* certificate = SSL_get0_peer_certificate(ssl);
        if (!certificate || SSL_get_verify_result(ssl) != X509_V_OK) return std::nullopt;
        return subject_name(*certificate);
    }

private:
    // A peer that refused our certificate and closed has said so before: its alert is here to be read. Or it is an
    // answer, which whoever reads shall find.
    error_code said_before_closing(error_code otherwise) {
        std::array<char, 1> first;
        const auto io = tls_->peek_ready(asio::buffer(first));
        return certificate_refused(io.error).empty() ? otherwise : io.error;
    }

    static constexpr short gone_events = POLLRDHUP | POLLHUP | POLLERR;
    [[nodiscard]] short pending_events() const noexcept {
        // asio gives the handle only to those who could change it.
        pollfd state{const_cast<StreamSocket&>(socket_).native_handle(), POLLIN | POLLRDHUP, 0};
        return ::poll(&state, 1, 0) > 0 ? state.revents : short{0};
    }

    // OpenSSL's reason, and what was wrong with the peer's certificate.
    base::Error rejected(error_code cause) {
        base::Error error{base::Errc::source_unavailable, "TLS handshake failed: " + cause.message()};
        const auto verified = SSL_get_verify_result(tls_->native_handle());
        if (verified != X509_V_OK) {
            const auto* const reason = X509_verify_cert_error_string(verified);
            error.detail = std::string{"certificate verification failed: "} + reason;
            error.facts["certificate"] = reason;
        } else if (cause == asio::error::eof || cause == asio::ssl::error::stream_truncated) {
            error.detail = "the connection ended during the TLS handshake";
        } else if (const auto alert = certificate_refused(cause); !alert.empty()) {
            error.facts["certificate_refused"] = alert;
        }
        return error;
    }

    StreamSocket socket_;
    TlsStream::Side side_;
    std::string host_;
    std::optional<TlsStream> tls_;
    bool established_ = false;
    bool reading_ = false;
    Watchdog<StreamSocket> watchdog_;
};

}  // namespace

void keep_alive(StreamSocket& socket) noexcept {
    const int on = 1;
    const int fd = socket.native_handle();
    ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keep_idle_s,
                 sizeof keep_idle_s);  // they fail on Unix sockets: no matter
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &keep_interval_s, sizeof keep_interval_s);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &keep_count, sizeof keep_count);
}

std::unique_ptr<Transport> make_server_transport(StreamSocket socket, TlsContext tls) {
    return std::make_unique<SocketTransport>(std::move(socket), std::move(tls), TlsStream::Side::server, std::string{});
}

std::unique_ptr<Transport> make_client_transport(StreamSocket socket, TlsContext tls, std::string host) {
    return std::make_unique<SocketTransport>(std::move(socket), std::move(tls), TlsStream::Side::client,
                                             std::move(host));
}

}  // namespace ghost::net
