// A server that says exactly what it is told to.
#pragma once

#include "net/client.hpp"
#include "net/tls.hpp"

#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <thread>
#include <utility>

namespace ghost::test {

// Answers each connection with the next of its scripts, whatever is asked, and closes it.
class ScriptedServer {
public:
    // With TLS it reads of a request only the beginning, and what comes after it resets the connection.
    explicit ScriptedServer(std::deque<std::string> scripts, net::TlsContext tls = nullptr);
    ~ScriptedServer();
    ScriptedServer(const ScriptedServer&) = delete;
    ScriptedServer& operator=(const ScriptedServer&) = delete;

    [[nodiscard]] net::Peer peer() const { return net::HttpPeer{"127.0.0.1", std::to_string(port_)}; }
    [[nodiscard]] net::Peer peer(net::TlsContext client) const {
        return net::HttpsPeer{"127.0.0.1", std::to_string(port_), std::move(client)};
    }
    std::atomic<int> served{0};

private:
    void run();
    void answer_in_haste(int fd, const std::string& script);

    std::deque<std::string> scripts_;
    net::TlsContext tls_;
    int fd_ = -1;
    std::uint16_t port_ = 0;
    std::thread thread_;
};

}  // namespace ghost::test
