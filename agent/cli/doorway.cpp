#include "agent/cli/doorway.hpp"

#include "agent/cli/stream_end.hpp"
#include "agent/cli/text.hpp"
#include "base/cancelled.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <fmt/format.h>

#include <cstring>
#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
using asio::generic::stream_protocol;
namespace {

constexpr std::chrono::milliseconds pause{100};  // when no connection can be taken

// "127.0.0.1:8080", "[::1]:8080"
std::string text_of(const asio::ip::tcp::endpoint& endpoint) {
    const auto address = endpoint.address().to_string();
    return endpoint.address().is_v6() ? fmt::format("[{}]:{}", address, endpoint.port())
                                      : fmt::format("{}:{}", address, endpoint.port());
}

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

base::Result<void> Doorway::open(const stream_protocol::endpoint& endpoint, const std::string& name, std::string target,
                                 std::string what) {
    Acceptor acceptor{executor_};
    boost::system::error_code fault;
    acceptor.open(endpoint.protocol(), fault);
    if (!fault && endpoint.protocol().family() != AF_UNIX) acceptor.set_option(Acceptor::reuse_address{true}, fault);
    if (!fault) acceptor.bind(endpoint, fault);
    if (!fault) acceptor.listen(Acceptor::max_listen_connections, fault);
    if (fault) return base::fail(base::Errc::io_error, fmt::format("cannot listen on {}: {}", name, fault.message()));
    doors_.push_back({std::move(acceptor), std::move(target), std::move(what)});
    return {};
}

base::Result<std::string> Doorway::listen_tcp(const std::string& address, std::uint16_t port, std::string target,
                                              std::string what) {
    boost::system::error_code fault;
    const auto ip = asio::ip::make_address(address, fault);
    if (fault) return base::fail(base::Errc::io_error, fmt::format("{} is no IP address", address));
    const asio::ip::tcp::endpoint wanted{ip, port};
    if (auto opened = open(wanted, text_of(wanted), std::move(target), std::move(what)); !opened)
        return base::fail(std::move(opened.error()));
    const auto bound = doors_.back().acceptor.local_endpoint(fault);
    if (fault) return base::fail(base::Errc::io_error, fmt::format("cannot listen on {}", text_of(wanted)));
    asio::ip::tcp::endpoint known = wanted;
    if (bound.size() <= known.capacity()) {
        std::memcpy(known.data(), bound.data(), bound.size());
        known.resize(bound.size());
    }
    return text_of(known);
}

base::Result<void> Doorway::listen_unix(const std::string& path, std::string target, std::string what) {
    try {
        return open(asio::local::stream_protocol::endpoint{path}, path, std::move(target), std::move(what));
    } catch (const boost::system::system_error& too_long) {
        return base::fail(base::Errc::io_error,
                          fmt::format("cannot listen on {}: {}", path, too_long.code().message()));
    }
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
        auto [fault, socket] = co_await door.acceptor.async_accept(asio::as_tuple(asio::use_awaitable));
        if (co_await base::is_cancelled()) co_return;
        if (fault) {
            (void)co_await clock_.sleep_for(pause);
            continue;
        }
        ++connections_;
        tasks_.spawn("connection", pass_on(std::move(socket), door));
    }
}

asio::awaitable<void> Doorway::pass_on(StreamSocket socket, const Door& door) {
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
