#include "tests/component/net/web_server.hpp"

#include <catch2/catch.hpp>
#include <openssl/ssl.h>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <memory>
#include <utility>

namespace ghost::test {
namespace {

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
}

// OpenSSL writes without MSG_NOSIGNAL.
void ignore_broken_pipes() {
    sigset_t broken_pipe;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
}

// One way of a relay: what is here; false at the end.
bool pass_on(int from, int to) {
    std::array<char, 16 * 1024> room{};
    const auto count = ::recv(from, room.data(), room.size(), 0);
    if (count <= 0) return false;
    for (ssize_t sent = 0; sent < count;) {
        const auto more = ::send(to, room.data() + sent, static_cast<std::size_t>(count - sent), MSG_NOSIGNAL);
        if (more <= 0) return false;
        sent += more;
    }
    return true;
}

void relay(int a, int b) {
    while (true) {
        std::array<pollfd, 2> both{pollfd{a, POLLIN, 0}, pollfd{b, POLLIN, 0}};
        if (::poll(both.data(), both.size(), -1) < 0) return;
        if (both[0].revents != 0 && !pass_on(a, b)) return;
        if (both[1].revents != 0 && !pass_on(b, a)) return;
    }
}

}  // namespace

LoopbackServer::LoopbackServer(std::function<void(int fd)> serve) : serve_(std::move(serve)) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    auto address = loopback(0);
    socklen_t size = sizeof address;
    REQUIRE(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(fd_, 8) == 0);
    REQUIRE(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread{[this] { accept_all(); }};
}

LoopbackServer::~LoopbackServer() { stop(); }

void LoopbackServer::stop() {
    if (fd_ < 0) return;
    ::shutdown(fd_, SHUT_RDWR);
    acceptor_.join();
    {
        const std::lock_guard lock{mutex_};
        for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
    }
    for (auto& connection : connections_) connection.join();
    ::close(std::exchange(fd_, -1));
}

void LoopbackServer::accept_all() {
    while (true) {
        const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) return;
        const std::lock_guard lock{mutex_};
        open_.insert(fd);
        connections_.emplace_back([this, fd] { serve_one(fd); });
    }
}

void LoopbackServer::serve_one(int fd) {
    ignore_broken_pipes();
    serve_(fd);
    const std::lock_guard lock{mutex_};
    open_.erase(fd);
    ::close(fd);
}

WebServer::WebServer(net::TlsContext tls) : tls_(std::move(tls)), server_([this](int fd) { serve(fd); }) {}

void WebServer::on(const std::string& target, std::string answer, After after) {
    const std::lock_guard lock{mutex_};
    said_[target] = {std::move(answer), after};
}

std::string WebServer::url(const std::string& target, const std::string& host) const {
    return "https://" + host + ":" + std::to_string(port()) + target;
}

std::vector<std::string> WebServer::requests() const {
    const std::lock_guard lock{mutex_};
    return requests_;
}

void WebServer::serve(int fd) {
    const std::unique_ptr<SSL, decltype(&SSL_free)> ssl{SSL_new(tls_->native_handle()), &SSL_free};
    SSL_set_fd(ssl.get(), fd);
    if (SSL_accept(ssl.get()) != 1) return;
    std::string request;
    std::array<char, 4096> room{};
    while (request.find("\r\n\r\n") == std::string::npos) {
        const int count = SSL_read(ssl.get(), room.data(), static_cast<int>(room.size()));
        if (count <= 0) return;
        request.append(room.data(), static_cast<std::size_t>(count));
    }
    Said said{.answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"};
    {
        const std::lock_guard lock{mutex_};
        const auto target = request.substr(4, request.find(' ', 4) - 4);
        if (const auto found = said_.find(target); found != said_.end()) said = found->second;
        requests_.push_back(std::move(request));
    }
    if (said.after == After::drip) {
        // Until who reads has enough.
        for (const char& drop : said.answer) {
            if (SSL_write(ssl.get(), &drop, 1) <= 0) return;
            std::this_thread::sleep_for(std::chrono::milliseconds{10});
        }
        said = {.answer = {}, .after = After::goodbye};
    }
    if (!said.answer.empty() && SSL_write(ssl.get(), said.answer.data(), static_cast<int>(said.answer.size())) <= 0)
        return;
    if (said.after == After::goodbye) SSL_shutdown(ssl.get());
    if (said.after != After::silence) ::shutdown(fd, SHUT_WR);
    while (::recv(fd, room.data(), room.size(), 0) > 0) {
    }
}

ProxyServer::ProxyServer(std::uint16_t port, std::string answer)
    : target_(port), answer_(std::move(answer)), server_([this](int fd) { serve(fd); }) {}

std::vector<std::string> ProxyServer::requests() const {
    const std::lock_guard lock{mutex_};
    return requests_;
}

void ProxyServer::serve(int fd) {
    std::string request;
    std::array<char, 4096> room{};
    while (request.find("\r\n\r\n") == std::string::npos) {
        const auto count = ::recv(fd, room.data(), room.size(), 0);
        if (count <= 0) return;
        request.append(room.data(), static_cast<std::size_t>(count));
    }
    {
        const std::lock_guard lock{mutex_};
        requests_.push_back(std::move(request));
    }
    ::send(fd, answer_.data(), answer_.size(), MSG_NOSIGNAL);
    if (!answer_.starts_with("HTTP/1.1 200")) {
        ::shutdown(fd, SHUT_WR);
        while (::recv(fd, room.data(), room.size(), 0) > 0) {
        }
        return;
    }
    const int there = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const auto address = loopback(target_);
    if (::connect(there, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) relay(fd, there);
    ::close(there);
}

std::string ok(std::string_view body, std::string_view headers) {
    std::string text{"HTTP/1.1 200 OK\r\n"};
    text.append(headers).append("Content-Length: ").append(std::to_string(body.size())).append("\r\n\r\n").append(body);
    return text;
}

std::string redirect(unsigned status, std::string_view location) {
    std::string text{"HTTP/1.1 " + std::to_string(status) + " Elsewhere\r\nLocation: "};
    return text.append(location).append("\r\nContent-Length: 5\r\n\r\nthere");
}

}  // namespace ghost::test
