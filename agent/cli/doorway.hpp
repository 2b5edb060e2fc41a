// Sockets on this machine whose connections each become a stream of the agent.
#pragma once

#include "agent/cli/agent_streams.hpp"
#include "agent/cli/byte_channel.hpp"
#include "agent/cli/console.hpp"
#include "agent/cli/relay.hpp"
#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "base/task_group.hpp"
#include "net/listening_socket.hpp"
#include "net/server.hpp"
#include "net/transport.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <cstddef>
#include <list>
#include <string>

namespace ghost::cli {

// All references must outlive it. Must have been closed when it goes.
class Doorway {
public:
    // `rules`: for each connection.
    Doorway(const boost::asio::any_io_executor& executor, AgentStreams& streams, base::Clock& clock, Console& console,
            RelayRules rules);

    // Where connections are taken from then on; those through it get a stream of `target`, which sentences call
    // `what`. The address with the port that was bound. Errors: each names the address.
    [[nodiscard]] base::Result<std::string> listen(const net::Endpoint& endpoint, std::string target, std::string what);

    // Until the caller is cancelled, which must have called throw_if_cancelled(false). What goes wrong with one
    // connection is told on the console.
    [[nodiscard]] boost::asio::awaitable<void> serve();
    // Cuts what is under way. Once, before it goes.
    [[nodiscard]] boost::asio::awaitable<void> close();

    static constexpr std::size_t most_connections = 256;  // the next wait to be taken

private:
    struct Door {
        net::ListeningSocket socket;
        std::string target;
        std::string what;
    };

    [[nodiscard]] boost::asio::awaitable<void> admit(Door& door);
    [[nodiscard]] boost::asio::awaitable<void> pass_on(net::StreamSocket socket, const Door& door);

    boost::asio::any_io_executor executor_;
    AgentStreams& streams_;
    base::Clock& clock_;
    Console& console_;
    RelayRules rules_;
    std::list<Door> doors_;
    base::Log log_{base::Level::error, {}, base::Log::Writer::caller};
    base::TaskGroup tasks_;
    base::Notifier freed_;
    std::size_t connections_ = 0;
};

}  // namespace ghost::cli
