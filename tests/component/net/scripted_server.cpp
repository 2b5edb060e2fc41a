#include "tests/component/net/scripted_server.hpp"

#include <catch2/catch.hpp>
#include <openssl/ssl.h>

#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <utility>

namespace ghost::test {

ScriptedServer::ScriptedServer(std::deque<std::string> scripts, net::TlsContext tls)
    : scripts_(std::move(scripts)), tls_(std::move(tls)) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(fd_, 8) == 0);
    REQUIRE(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread{[this] { run(); }};
}

ScriptedServer::~ScriptedServer() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
}

void ScriptedServer::run() {
    for (const auto& script : scripts_) {
        const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) return;
        if (tls_) {
            answer_in_haste(fd, script);
            ::close(fd);
            continue;
        }
        std::array<char, 4096> request{};
        if (::recv(fd, request.data(), request.size(), 0) > 0) {
            ++served;
            static_cast<void>(::send(fd, script.data(), script.size(), MSG_NOSIGNAL));
        }
        ::shutdown(fd, SHUT_WR);
        while (::recv(fd, request.data(), request.size(), 0) > 0) {
        }
        ::close(fd);
    }
}

void ScriptedServer::answer_in_haste(int fd, const std::string& script) {
    const std::unique_ptr<SSL, decltype(&SSL_free)> tls{SSL_new(tls_->native_handle()), &SSL_free};
    SSL_set_fd(tls.get(), fd);
    std::array<char, 512> request{};
    if (SSL_accept(tls.get()) != 1 || SSL_read(tls.get(), request.data(), request.size()) <= 0) return;
    ++served;
    // Until the client can't go on writing, and will find the answer only if it looks for it.
    for (int queued = -1, before = -2; queued != before; ::usleep(20'000)) {
        before = queued;
        if (::ioctl(fd, FIONREAD, &queued) != 0) return;
    }
    SSL_write(tls.get(), script.data(), static_cast<int>(script.size()));
    SSL_shutdown(tls.get());
}

}  // namespace ghost::test
