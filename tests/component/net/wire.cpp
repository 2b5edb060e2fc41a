#include "tests/component/net/wire.hpp"

#include "net/peer.hpp"
#include "net/text.hpp"

#include <openssl/ssl.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace ghost::test {
namespace {

int connected(int family, const sockaddr* address, socklen_t size, int receive_buffer = 0) {
    const int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    // A test that would hang fails instead.
    const timeval limit{.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (receive_buffer > 0) ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (::connect(fd, address, size) == 0) return fd;
    ::close(fd);
    throw std::runtime_error("cannot connect");
}

}  // namespace

Wire Wire::tcp(std::uint16_t port, int receive_buffer) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return Wire{connected(AF_INET, reinterpret_cast<const sockaddr*>(&address), sizeof address, receive_buffer)};
}

Wire Wire::tls(std::uint16_t port, const net::TlsContext& context) {
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes to the socket as to a file
    auto wire = tcp(port);
    wire.ssl_ = SSL_new(context->native_handle());
    SSL_set_fd(wire.ssl_, wire.fd_);
    return wire;
}

Wire Wire::unix_socket(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return Wire{connected(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), sizeof address)};
}

Wire::Wire(Wire&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), ssl_(std::exchange(other.ssl_, nullptr)), buffer_(std::move(other.buffer_)) {}

Wire::~Wire() { hang_up(); }

bool Wire::shake() { return SSL_connect(ssl_) == 1; }

bool Wire::renegotiate() { return SSL_renegotiate(ssl_) == 1 && SSL_do_handshake(ssl_) == 1; }

std::string Wire::peer_common_name() const { return net::subject_name(*SSL_get0_peer_certificate(ssl_)); }

bool Wire::send(std::string_view bytes) {
    while (!bytes.empty()) {
        const auto count = ssl_ ? SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size()))
                                : ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (count <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
}

void Wire::end_sending() {
    if (ssl_) SSL_shutdown(ssl_);
    ::shutdown(fd_, SHUT_WR);
}

void Wire::hang_up() {
    if (ssl_) SSL_free(std::exchange(ssl_, nullptr));
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void Wire::hang_up_hard() {
    const linger now{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    hang_up();
}

bool Wire::fill() {
    std::array<char, 16 * 1024> room;
    const auto count =
        ssl_ ? SSL_read(ssl_, room.data(), static_cast<int>(room.size())) : ::recv(fd_, room.data(), room.size(), 0);
    if (count < 0 && !ssl_ && (errno == EAGAIN || errno == EWOULDBLOCK))
        throw std::runtime_error("the server neither answered nor hung up");
    if (count <= 0) return false;
    buffer_.append(room.data(), static_cast<std::size_t>(count));
    return true;
}

std::string Wire::response(bool head) {
    std::size_t end = 0;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
        if (!fill()) return std::exchange(buffer_, {});
    }
    std::size_t length = end + 4;
    const auto announced = header_of(buffer_, "Content-Length");
    if (!head && !announced.empty()) length += std::stoul(announced);
    while (buffer_.size() < length) {
        if (!fill()) break;
    }
    auto whole = buffer_.substr(0, length);
    buffer_.erase(0, length);
    return whole;
}

std::string Wire::take(std::size_t count) {
    while (buffer_.size() < count) {
        if (!fill()) break;
    }
    auto taken = buffer_.substr(0, count);
    buffer_.erase(0, taken.size());
    return taken;
}

std::optional<std::string> Wire::chunk() {
    std::size_t end = 0;
    while ((end = buffer_.find("\r\n")) == std::string::npos) {
        if (!fill()) return std::nullopt;
    }
    std::size_t size = 0;
    const auto* const last = buffer_.data() + end;
    const auto [stopped, error] = std::from_chars(buffer_.data(), last, size, 16);
    if (stopped != last || error != std::errc{}) return std::nullopt;
    static_cast<void>(take(end + 2));
    auto data = take(size + 2);
    if (data.size() != size + 2 || !data.ends_with("\r\n")) return std::nullopt;
    return data.substr(0, size);
}

std::string Wire::rest() {
    while (fill()) {
    }
    return std::exchange(buffer_, {});
}

unsigned status_of(std::string_view response) {
    if (!response.starts_with("HTTP/1.1 ") || response.size() < 12) return 0;
    return static_cast<unsigned>(std::stoul(std::string{response.substr(9, 3)}));
}

std::string header_of(std::string_view response, std::string_view name) {
    auto head = response.substr(0, response.find("\r\n\r\n"));
    while (true) {
        const auto line = head.substr(0, head.find("\r\n"));
        const auto colon = line.find(": ");
        if (colon != std::string_view::npos && net::same_token(line.substr(0, colon), name))
            return std::string{line.substr(colon + 2)};
        if (line.size() == head.size()) return {};
        head.remove_prefix(line.size() + 2);
    }
}

std::string body_of(std::string_view response) {
    const auto end = response.find("\r\n\r\n");
    return end == std::string_view::npos ? std::string{} : std::string{response.substr(end + 4)};
}

std::string get(std::string_view path, std::string_view headers) {
    return "GET " + std::string{path} + " HTTP/1.1\r\nHost: a\r\n" + std::string{headers} + "\r\n";
}

}  // namespace ghost::test
