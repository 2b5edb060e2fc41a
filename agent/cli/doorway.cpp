#include "agent/cli/doorway.hpp"

#include "agent/cli/stream_end.hpp"
#include "agent/cli/text.hpp"
#include "base/cancelled.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::milliseconds pause{100};  // when no connection can be taken

}  // namespace

Doorway::Doorway(const asio::any_io_executor& executor, AgentStreams& streams, base::Clock& clock, Console& console,
                 RelayRules rules)
    : executor_(executor),
      streams_(streams),
      clock_(clock),
      console_(console),
      rules_(std::move(rules)),
      tasks_(executor, log_),
      freed_(executor) {}

base::Result<std::string> Doorway::listen(const net::Endpoint& endpoint, std::string target, std::string what) {
    auto socket = net::open_listening_socket(executor_, endpoint);
    if (!socket) return base::fail(std::move(socket.error()));
    doors_.push_back({std::move(*socket), std::move(target), std::move(what)});
    return doors_.back().socket.address;
}

asio::awaitable<void> Doorway::serve() {
    for (auto& door : doors_) tasks_.spawn("door", admit(door));
    base::Notifier never{executor_};
    while (!co_await base::is_cancelled()) co_await never.wait();
}

asio::awaitable<void> Doorway::close() {
    tasks_.cancel();
    co_await tasks_.drain();
}

asio::awaitable<void> Doorway::admit(Door& door) {
    co_await asio::this_coro::throw_if_cancelled(false);
    while (!co_await base::is_cancelled()) {
        if (connections_ >= most_connections) {
            co_await freed_.wait();
            continue;
        }
        auto [fault, socket] = co_await door.socket.acceptor.async_accept(asio::as_tuple(asio::use_awaitable));
        if (co_await base::is_cancelled()) co_return;
        if (fault) {
            (void)co_await clock_.sleep_for(pause);
            continue;
        }
        ++connections_;
        tasks_.spawn("connection", pass_on(std::move(socket), door));
    }
}

asio::awaitable<void> Doorway::pass_on(net::StreamSocket socket, const Door& door) {
    struct Place {
        Doorway& doorway;
        ~Place() {
            --doorway.connections_;
            doorway.freed_.notify();
        }
    } const place{*this};
    co_await asio::this_coro::throw_if_cancelled(false);
    boost::system::error_code ignored;
    (void)socket.set_option(asio::ip::tcp::no_delay{true}, ignored);  // no matter for a Unix socket
    const auto tell = [&](const Failure& failure) {
        console_.error(fmt::format("ghostctl: {}\n", printable(fmt::format("{}: {}", door.what, failure.sentence))));
    };
    auto stream = co_await streams_.open(door.target);
    if (co_await base::is_cancelled()) co_return;
    if (!stream) co_return tell(stream.error());
    const auto channel = make_channel(std::move(socket));
    Relay relay{executor_, clock_, **stream, *channel, rules_};
    const auto end = co_await relay.run();
    if (co_await base::is_cancelled()) co_return;
    if (const auto failure = failure_of_stream(end, "a connection")) tell(*failure);
}

}  // namespace ghost::cli
