#include "net/tls_stream.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace ghost::net {
namespace asio = boost::asio;
using boost::system::error_code;

// The socket as OpenSSL sees it. It takes all that OpenSSL wants to write, even when the socket doesn't: a read may
// have to answer with new keys while a write waits, which OpenSSL can't do in the middle of a record. And it raises no
// SIGPIPE.
struct TlsStream::Wire {
    static constexpr std::size_t most_waiting = 64 * 1024;  // bytes; a record and many answers
    static constexpr int most_reads = 64;                   // of one call of OpenSSL's

    StreamSocket& socket;
    std::string waiting = {};  // until the socket takes it
    int reads = 0;             // of the call that is under way
    int error = 0;             // errno of the last failure; 0: the peer has ended the connection

    static Wire& of(BIO* bio) noexcept { return *static_cast<Wire*>(BIO_get_data(bio)); }

    static int read(BIO* bio, char* room, std::size_t size, std::size_t* bytes) noexcept {
        auto& wire = of(bio);
        BIO_clear_retry_flags(bio);
        // OpenSSL goes on for as long as what comes is no data. A wait for more lets others have their turn, and no
        // more than that if it is here.
        if (wire.reads++ >= most_reads) {
            BIO_set_retry_read(bio);
            return -1;
        }
        const auto count = wire.again([&](int fd) { return ::recv(fd, room, size, MSG_DONTWAIT); });
        if (count < 0 && wire.error == EAGAIN) BIO_set_retry_read(bio);
        if (count <= 0) return static_cast<int>(count);
        *bytes = static_cast<std::size_t>(count);
        return 1;
    }
    static int write(BIO* bio, const char* from, std::size_t size, std::size_t* bytes) noexcept {
        auto& wire = of(bio);
        BIO_clear_retry_flags(bio);
        if (wire.waiting.size() >= most_waiting) {
            BIO_set_retry_write(bio);
            return -1;
        }
        const auto sent = wire.waiting.empty() ? wire.send({from, size}) : 0;
        if (sent < 0) return -1;
        wire.waiting.append(from + sent, size - static_cast<std::size_t>(sent));
        *bytes = size;
        return 1;
    }
    static long control(BIO*, int what, long, void*) noexcept { return what == BIO_CTRL_FLUSH ? 1 : 0; }

    // How much the socket took; -1: an error.
    ssize_t send(std::string_view bytes) noexcept {
        const auto count =
            again([&](int fd) { return ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL); });
        return count < 0 && error == EAGAIN ? 0 : count;
    }
    // False: an error.
    bool flush() noexcept {
        const auto sent = waiting.empty() ? 0 : send(waiting);
        if (sent < 0) return false;
        waiting.erase(0, static_cast<std::size_t>(sent));
        if (waiting.empty()) std::string{}.swap(waiting);
        return true;
    }

    static const BIO_METHOD* method() {
        static const std::unique_ptr<BIO_METHOD, decltype(&BIO_meth_free)> method = [] {
            std::unique_ptr<BIO_METHOD, decltype(&BIO_meth_free)> made{
                BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "a connected socket"), &BIO_meth_free};
            if (!made || BIO_meth_set_read_ex(made.get(), &read) != 1 ||
                BIO_meth_set_write_ex(made.get(), &write) != 1 || BIO_meth_set_ctrl(made.get(), &control) != 1)
                throw std::bad_alloc{};
            return made;
        }();
        return method.get();
    }

private:
    template <class Move>
    ssize_t again(Move move) noexcept {
        ssize_t count = 0;
        do {
            count = move(socket.native_handle());
        } while (count < 0 && errno == EINTR);
        error = count < 0 ? errno : 0;
        return count;
    }
};

// How a call of OpenSSL's ended: with `bytes`, an error, or the wish to be called again after a wait.
struct TlsStream::Step {
    std::size_t bytes = 0;
    error_code error = {};
    std::optional<asio::socket_base::wait_type> wants = std::nullopt;
};

namespace {

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t record = SSL3_RT_MAX_PLAIN_LENGTH;
// A peer that always has more, or always takes more, leaves the loop to others after so many bytes; a call counts as a
// page.
constexpr std::size_t turn = 64 * 1024;
constexpr std::size_t least = 4096;

error_code fault_of_socket(int error) { return {error, asio::error::get_system_category()}; }

error_code truncated() { return asio::ssl::error::stream_truncated; }

error_code fault_of_ssl() {
    const auto code = ERR_get_error();
    ERR_clear_error();
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return truncated();
    return {static_cast<int>(code), asio::error::get_ssl_category()};
}

// What is left of pieces that are written one after the other.
class Rest {
public:
    explicit Rest(std::span<const asio::const_buffer> pieces) : pieces_(pieces) { skip_empty(); }

    [[nodiscard]] bool empty() const noexcept { return pieces_.empty(); }
    // The next record's: where it lies, or gathered in `room` when it is scattered. The same until advance().
    [[nodiscard]] asio::const_buffer next(std::span<char, record> room) const noexcept {
        const auto first = pieces_.front() + offset_;
        if (first.size() >= record || pieces_.size() == 1) return asio::buffer(first, record);
        std::size_t filled = 0;
        auto from = offset_;
        for (const auto& piece : pieces_) {
            const auto part = asio::buffer(piece + std::exchange(from, 0), record - filled);
            if (part.size() > 0) std::memcpy(room.data() + filled, part.data(), part.size());
            filled += part.size();
        }
        return {room.data(), filled};
    }
    void advance(std::size_t bytes) noexcept {
        while (bytes > 0) {
            const auto part = std::min(bytes, pieces_.front().size() - offset_);
            offset_ += part;
            bytes -= part;
            skip_empty();
        }
    }

private:
    void skip_empty() noexcept {
        while (!pieces_.empty() && offset_ == pieces_.front().size()) {
            pieces_ = pieces_.subspan(1);
            offset_ = 0;
        }
    }

    std::span<const asio::const_buffer> pieces_;
    std::size_t offset_ = 0;  // into the first
};

}  // namespace

TlsStream::TlsStream(StreamSocket& socket, TlsContext context)
    : socket_(socket),
      context_(std::move(context)),
      wire_(new Wire{socket}),
      ssl_(SSL_new(context_->native_handle()), &SSL_free) {
    BIO* bio = BIO_new(Wire::method());
    if (!ssl_ || bio == nullptr) {
        BIO_free(bio);
        throw std::bad_alloc{};
    }
    BIO_set_data(bio, wire_.get());
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl_.get(), bio, bio);
    // A write that has to wait all the same is begun again from a buffer that may lie elsewhere.
    SSL_set_mode(ssl_.get(),
                 SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

TlsStream::~TlsStream() = default;

template <class Call>
TlsStream::Step TlsStream::step(Call call) noexcept {
    ERR_clear_error();
    wire_->error = 0;
    wire_->reads = 0;
    Step result;
    const int done = call(result.bytes);
    if (done > 0) return result;
    result.bytes = 0;
    switch (SSL_get_error(ssl_.get(), done)) {
        case SSL_ERROR_WANT_READ: result.wants = asio::socket_base::wait_read; break;
        case SSL_ERROR_WANT_WRITE: result.wants = asio::socket_base::wait_write; break;
        case SSL_ERROR_ZERO_RETURN: result.error = asio::error::eof; break;
        case SSL_ERROR_SYSCALL: result.error = wire_->error == 0 ? truncated() : fault_of_socket(wire_->error); break;
        default: result.error = fault_of_ssl(); break;
    }
    assert(result.wants || result.error);
    return result;
}

asio::awaitable<error_code> TlsStream::flush() {
    while (!wire_->waiting.empty()) {
        unbroken_ = 0;
        const auto [error] = co_await socket_.async_wait(asio::socket_base::wait_write, quiet);
        if (error) co_return error;
        if (!wire_->flush()) co_return fault_of_socket(wire_->error);
    }
    co_return error_code{};
}

template <class Call>
asio::awaitable<Io> TlsStream::carry_through(Call call, Flow flow) {
    // Before the call: what is cancelled here has lost nothing.
    if (unbroken_ >= turn) {
        unbroken_ = 0;
        co_await asio::post(socket_.get_executor(), asio::use_awaitable);
    }
    while (true) {
        const auto now = step(call);
        unbroken_ += std::max(now.bytes, least);
        // What a read wants to say goes with the next write.
        if (flow == Flow::both && !wire_->waiting.empty()) {
            const auto error = co_await flush();
            if (error && !now.error) co_return Io{.error = error, .bytes = now.bytes};
        }
        if (!now.wants) co_return Io{.error = now.error, .bytes = now.bytes};
        unbroken_ = 0;
        const auto [error] = co_await socket_.async_wait(*now.wants, quiet);
        if (error) co_return Io{.error = error};
        // What a peer that takes no more had said before is still here to be read.
        const bool reads_on = flow == Flow::in && *now.wants == asio::socket_base::wait_read;
        if (!wire_->flush() && !reads_on) co_return Io{.error = fault_of_socket(wire_->error)};
    }
}

asio::awaitable<error_code> TlsStream::handshake(Side side) {
    if (side == Side::server)
        SSL_set_accept_state(ssl_.get());
    else
        SSL_set_connect_state(ssl_.get());
    const auto io = co_await carry_through([this](std::size_t&) { return SSL_do_handshake(ssl_.get()); }, Flow::both);
    co_return io.error;
}

asio::awaitable<Io> TlsStream::read_some(asio::mutable_buffer room) {
    co_return co_await carry_through(
        [this, room](std::size_t& bytes) { return SSL_read_ex(ssl_.get(), room.data(), room.size(), &bytes); },
        Flow::in);
}

Io TlsStream::ready(int (*take)(SSL*, void*, std::size_t, std::size_t*), asio::mutable_buffer room) noexcept {
    const auto now = step([&](std::size_t& bytes) { return take(ssl_.get(), room.data(), room.size(), &bytes); });
    if (now.wants) return {.error = asio::error::would_block};
    return {.error = now.error, .bytes = now.bytes};
}

Io TlsStream::read_ready(asio::mutable_buffer room) noexcept { return ready(&SSL_read_ex, room); }
Io TlsStream::peek_ready(asio::mutable_buffer room) noexcept { return ready(&SSL_peek_ex, room); }

asio::awaitable<Io> TlsStream::write(std::span<const asio::const_buffer> pieces) {
    Io total;
    for (Rest rest{pieces}; !rest.empty() && !total.error;) {
        const auto io = co_await carry_through(
            [this, &rest](std::size_t& bytes) {
                std::array<char, record> room;
                const auto next = rest.next(room);
                return SSL_write_ex(ssl_.get(), next.data(), next.size(), &bytes);
            },
            Flow::both);
        rest.advance(io.bytes);
        total.bytes += io.bytes;
        total.error = io.error;
    }
    co_return total;
}

asio::awaitable<error_code> TlsStream::shutdown() {
    for (int done = 0; done == 0;) {
        const auto io = co_await carry_through(
            [&](std::size_t&) {
                done = SSL_shutdown(ssl_.get());
                return done == 0 ? 1 : done;
            },
            Flow::both);
        if (io.error) co_return io.error;
    }
    co_return error_code{};
}

}  // namespace ghost::net
