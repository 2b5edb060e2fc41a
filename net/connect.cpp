#include "net/connect.hpp"

#include "net/watchdog.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <vector>

namespace ghost::net {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using GenericEndpoint = asio::generic::stream_protocol::endpoint;
using Endpoints = std::vector<GenericEndpoint>;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);

struct Name {
    std::string host;
    std::string port;
};

std::string url(std::string_view scheme, const std::string& host, const std::string& port) {
    const bool v6 = host.find(':') != std::string::npos;
    return std::string{scheme} + (v6 ? "[" + host + "]" : host) + ":" + port;
}

base::Instant now() { return std::chrono::steady_clock::now(); }

std::unexpected<base::Error> too_late(const Peer& peer) {
    return base::fail(base::Errc::deadline_exceeded, "connecting to " + describe(peer) + " took too long");
}

std::optional<Endpoints> numeric(const Name& name) {
    error_code error;
    const auto address = asio::ip::make_address(name.host, error);
    std::uint16_t port = 0;
    const auto* end = name.port.data() + name.port.size();
    const auto parsed = std::from_chars(name.port.data(), end, port);
    if (error || parsed.ec != std::errc{} || parsed.ptr != end) return std::nullopt;
    return Endpoints{GenericEndpoint{asio::ip::tcp::endpoint{address, port}}};
}

// A look-up in asio's resolver thread can't be called back: it is left to end by itself.
struct Lookup {
    explicit Lookup(const asio::any_io_executor& executor) : resolver(executor), done(executor, base::Instant::max()) {}
    asio::ip::tcp::resolver resolver;
    asio::steady_timer done;  // cancelled when the answer is here
    error_code error;
    Endpoints endpoints;
    bool answered = false;
};

asio::awaitable<base::Result<Endpoints>> look_up(const Peer& peer, const Name& name, base::Instant deadline) {
    if (auto known = numeric(name)) co_return *std::move(known);
    const auto executor = co_await asio::this_coro::executor;
    const auto lookup = std::make_shared<Lookup>(executor);
    lookup->resolver.async_resolve(name.host, name.port,
                                   [lookup](error_code error, const asio::ip::tcp::resolver::results_type& results) {
                                       lookup->error = error;
                                       for (const auto& result : results)
                                           lookup->endpoints.emplace_back(result.endpoint());
                                       lookup->answered = true;
                                       lookup->done.cancel();
                                   });
    lookup->done.expires_at(deadline);
    co_await lookup->done.async_wait(quiet);
    if (!lookup->answered) {
        if (now() >= deadline) co_return too_late(peer);
        co_return base::fail(base::Errc::cancelled);
    }
    if (lookup->error)
        co_return base::fail(base::Errc::source_unavailable,
                             "cannot resolve " + name.host + ": " + lookup->error.message());
    co_return std::move(lookup->endpoints);
}

asio::awaitable<base::Result<Endpoints>> endpoints_of(const Peer& peer, base::Instant deadline) {
    if (const auto* local = std::get_if<UnixPeer>(&peer)) {
        if (local->path.empty() || local->path.size() >= sizeof(sockaddr_un::sun_path))
            co_return base::fail(base::Errc::source_unavailable,
                                 "not a socket's path: \"" + local->path + "\" is empty or too long");
        co_return Endpoints{GenericEndpoint{asio::local::stream_protocol::endpoint{local->path}}};
    }
    Name name;
    if (const auto* https = std::get_if<HttpsPeer>(&peer)) name = {https->host, https->port};
    if (const auto* http = std::get_if<HttpPeer>(&peer)) name = {http->host, http->port};
    auto found = co_await look_up(peer, name, deadline);
    co_return found;
}

}  // namespace

std::string describe(const Peer& peer) {
    if (const auto* https = std::get_if<HttpsPeer>(&peer)) return url("https://", https->host, https->port);
    if (const auto* http = std::get_if<HttpPeer>(&peer)) return url("http://", http->host, http->port);
    return std::get<UnixPeer>(peer).path;
}

asio::awaitable<base::Result<StreamSocket>> connect_to(const Peer& peer, base::Instant deadline) {
    const auto endpoints = co_await endpoints_of(peer, deadline);
    if (!endpoints) co_return base::fail(endpoints.error());
    const auto executor = co_await asio::this_coro::executor;
    error_code last = asio::error::host_not_found;
    for (std::size_t i = 0; i < endpoints->size(); ++i) {
        if (now() >= deadline) co_return too_late(peer);
        const auto share = (deadline - now()) / static_cast<long>(endpoints->size() - i);
        StreamSocket socket{executor};
        socket.open((*endpoints)[i].protocol(), last);
        if (last) continue;
        ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
        Watchdog<StreamSocket> watchdog{socket};
        const Watchdog<StreamSocket>::Guard guard{watchdog, now() + share};
        const auto [error] = co_await socket.async_connect((*endpoints)[i], quiet);
        last = guard.expired() ? error_code{asio::error::timed_out} : error;
        if (last == asio::error::operation_aborted) co_return base::fail(base::Errc::cancelled);
        if (last) continue;
        const int on = 1;
        ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        co_return std::move(socket);
    }
    if (now() >= deadline) co_return too_late(peer);
    co_return base::fail(base::Errc::source_unavailable, "cannot connect to " + describe(peer) + ": " + last.message());
}

}  // namespace ghost::net
