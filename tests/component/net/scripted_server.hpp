// A server that says exactly what it is told to.
#pragma once

#include "net/client.hpp"

#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <thread>

namespace ghost::test {

// Answers each connection with the next of its scripts, whatever is asked, and closes it.
class ScriptedServer {
public:
    explicit ScriptedServer(std::deque<std::string> scripts);
    ~ScriptedServer();
    ScriptedServer(const ScriptedServer&) = delete;
    ScriptedServer& operator=(const ScriptedServer&) = delete;

    [[nodiscard]] net::Peer peer() const { return net::HttpPeer{"127.0.0.1", std::to_string(port_)}; }
    std::atomic<int> served{0};

private:
    void run();

    std::deque<std::string> scripts_;
    int fd_ = -1;
    std::uint16_t port_ = 0;
    std::thread thread_;
};

}  // namespace ghost::test
