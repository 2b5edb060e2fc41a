#include "tests/component/net/scripted_server.hpp"

#include <catch2/catch.hpp>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <utility>

namespace ghost::test {

ScriptedServer::ScriptedServer(std::deque<std::string> scripts) : scripts_(std::move(scripts)) {
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

}  // namespace ghost::test
