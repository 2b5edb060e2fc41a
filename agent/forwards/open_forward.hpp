// A port of this host that is open, and what goes through it to a guest.
#pragma once

#include "agent/access/guest_dialer.hpp"
#include "agent/forwards/ports.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

namespace ghost::agent {

// What all forwards share; it outlives them.
struct ForwardsGround {
    boost::asio::any_io_executor executor;
    const VmIndex& index;
    GuestDialer& dialer;
    base::Clock& clock;
    base::Log& log;
    base::Duration idle_timeout;  // of a TCP connection
    base::Notifier room;          // a connection has ended
    std::size_t connections = 0;  // of all forwards
};

inline constexpr std::size_t max_connections = 1024;            // of all forwards; more wait in the backlog
inline constexpr std::size_t max_connections_of_forward = 256;  // the same of one
inline constexpr std::size_t max_flows_of_forward = 256;        // clients of UDP; the one that is silent longest goes
inline constexpr std::chrono::seconds flow_idle{60};            // after which a client of UDP is forgotten
inline constexpr std::chrono::seconds dial_limit{5};

// Which forward it is.
struct ForwardPlace {
    std::string vm;    // id
    std::string name;  // the forward's
    std::uint16_t guest_port = 0;
};

// Loop thread only. close() it and drain() it before it goes.
class OpenForward {
public:
    virtual ~OpenForward() = default;
    // The guest is gone: what goes through ends, and the port stays open.
    virtual void hang_up() = 0;
    // Listens no more, and ends what goes through, at once.
    virtual void close() = 0;
    [[nodiscard]] virtual boost::asio::awaitable<void> drain() = 0;
};

[[nodiscard]] std::unique_ptr<OpenForward> forward_tcp(ForwardsGround& ground, ForwardPlace place,
                                                       boost::asio::ip::tcp::acceptor acceptor);
[[nodiscard]] std::unique_ptr<OpenForward> forward_udp(ForwardsGround& ground, ForwardPlace place,
                                                       boost::asio::ip::udp::socket socket);

// Says why a guest isn't reached, once a minute at most: clients try again and again.
class UnreachedLog {
public:
    void say(const ForwardsGround& ground, const ForwardPlace& place, const base::Error& why);

    static constexpr std::chrono::seconds interval{60};

private:
    base::Instant next_ = base::Instant::min();
    std::size_t unsaid_ = 0;
};

}  // namespace ghost::agent
