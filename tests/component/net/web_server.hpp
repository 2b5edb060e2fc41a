// Servers on loopback for the web client: one that says over TLS what it is told to, and a proxy.
#pragma once

#include "net/tls.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace ghost::test {

// Accepts until it is destroyed, then ends every connection; each is served on a thread of its own.
class LoopbackServer {
public:
    explicit LoopbackServer(std::function<void(int fd)> serve);
    ~LoopbackServer();
    LoopbackServer(const LoopbackServer&) = delete;
    LoopbackServer& operator=(const LoopbackServer&) = delete;

    [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
    void stop();

private:
    void accept_all();
    void serve_one(int fd);

    std::function<void(int fd)> serve_;
    int fd_ = -1;
    std::uint16_t port_ = 0;
    std::mutex mutex_;
    std::set<int> open_;
    std::vector<std::thread> connections_;
    std::thread acceptor_;
};

// How a connection of WebServer's goes on after its bytes were sent.
// TLS's close; the end without it; nothing more; or it comes in drops, 100 bytes a second.
enum class After : std::uint8_t { goodbye, cut, silence, drip };

class WebServer {
public:
    explicit WebServer(net::TlsContext tls);
    ~WebServer() { server_.stop(); }
    WebServer(const WebServer&) = delete;
    WebServer& operator=(const WebServer&) = delete;

    // What GETs of `target` are answered, byte for byte; others with 404.
    void on(const std::string& target, std::string answer, After after = After::goodbye);
    [[nodiscard]] std::string url(const std::string& target, const std::string& host = "localhost") const;
    [[nodiscard]] std::uint16_t port() const noexcept { return server_.port(); }
    [[nodiscard]] std::vector<std::string> requests() const;  // their heads

private:
    struct Said {
        std::string answer;
        After after = After::goodbye;
    };
    void serve(int fd);

    net::TlsContext tls_;
    mutable std::mutex mutex_;
    std::map<std::string, Said> said_;
    std::vector<std::string> requests_;
    LoopbackServer server_;
};

// Answers every CONNECT as it was told; after a success it leads to `port` on loopback, whatever name was asked for.
class ProxyServer {
public:
    explicit ProxyServer(std::uint16_t port, std::string answer = "HTTP/1.1 200 Connection established\r\n\r\n");
    ~ProxyServer() { server_.stop(); }
    ProxyServer(const ProxyServer&) = delete;
    ProxyServer& operator=(const ProxyServer&) = delete;

    [[nodiscard]] std::uint16_t port() const noexcept { return server_.port(); }
    [[nodiscard]] std::vector<std::string> requests() const;

private:
    void serve(int fd);

    std::uint16_t target_;
    std::string answer_;
    mutable std::mutex mutex_;
    std::vector<std::string> requests_;
    LoopbackServer server_;
};

[[nodiscard]] std::string ok(std::string_view body, std::string_view headers = {});
[[nodiscard]] std::string redirect(unsigned status, std::string_view location);

}  // namespace ghost::test
