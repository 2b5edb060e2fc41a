#include "net/connect.hpp"

#include "net/lookup.hpp"
#include "net/text.hpp"
#include "net/tunnel.hpp"
#include "net/watchdog.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <vector>

namespace ghost::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using GenericEndpoint = asio::generic::stream_protocol::endpoint;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds resolver_patience{2};  // where the name is resolved once more, elsewhere

struct Name {
    std::string host;
    std::string port;
    const Hosts* hosts = nullptr;
};

std::string bracketed(const std::string& host) { return host.find(':') != std::string::npos ? "[" + host + "]" : host; }

std::string url(std::string_view scheme, const std::string& host, const std::string& port) {
    return std::string{scheme} + bracketed(host) + ":" + port;
}

base::Instant now() { return std::chrono::steady_clock::now(); }

std::unexpected<base::Error> too_late(const std::string& who) {
    return base::fail(base::Errc::deadline_exceeded, "connecting to " + who + " took too long");
}

// What needs no looking up: an address, or a host that is known.
std::optional<Endpoints> known_endpoints(const Name& name) {
    std::uint16_t port = 0;
    const auto* end = name.port.data() + name.port.size();
    const auto parsed = std::from_chars(name.port.data(), end, port);
    if (parsed.ec != std::errc{} || parsed.ptr != end) return std::nullopt;
    error_code error;
    const auto address = asio::ip::make_address(name.host, error);
    if (!error) return Endpoints{tcp::endpoint{address, port}};
    const auto host = name.hosts == nullptr ? Hosts::const_iterator{} : name.hosts->find(name.host);
    if (name.hosts == nullptr || host == name.hosts->end()) return std::nullopt;
    Endpoints endpoints;
    for (const auto& each : host->second) endpoints.emplace_back(each, port);
    return endpoints;
}

asio::awaitable<base::Result<Endpoints>> look_up(const std::string& who, const Name& name, base::Instant deadline) {
    if (auto known = known_endpoints(name)) {
        if (!known->empty()) co_return *std::move(known);
        co_return base::fail(base::Errc::source_unavailable, "cannot resolve " + name.host + ": Host not found");
    }
    const auto executor = co_await asio::this_coro::executor;
    auto found = co_await lookup_of(executor).find(name.host, name.port, deadline);
    if (!found && found.error().code == base::Errc::deadline_exceeded) co_return too_late(who);
    co_return found;
}

// What `host` stands for without asking anyone: an address in any of the forms that resolvers take ("127.1"), or
// localhost.
std::optional<asio::ip::address> evident_address(std::string host) {
    if (host.ends_with('.')) host.pop_back();
    const auto last = std::string_view{host}.substr(host.rfind('.') + 1);
    if (same_token(last, "localhost")) return asio::ip::address_v4::loopback();
    error_code error;
    auto address = asio::ip::make_address(host, error);
    if (!error) return address;
    in_addr v4{};
    if (::inet_aton(host.c_str(), &v4) == 0) return std::nullopt;
    return asio::ip::address_v4{ntohl(v4.s_addr)};
}

std::unexpected<base::Error> not_allowed(const std::string& who, const std::string& host,
                                         const asio::ip::address& address) {
    const auto text = address.to_string();
    return base::fail(base::Errc::address_not_allowed,
                      "cannot connect to " + who + ": " +
                          (text == host ? text + " is" : host + " resolves to " + text + ", which is") +
                          " not a public address");
}

// Tries them in turn, each with a fair part of the time.
asio::awaitable<base::Result<StreamSocket>> dial(const std::string& who, const std::vector<GenericEndpoint>& endpoints,
                                                 base::Instant deadline) {
    const auto executor = co_await asio::this_coro::executor;
    error_code last = asio::error::host_not_found;
    for (std::size_t i = 0; i < endpoints.size(); ++i) {
        if (now() >= deadline) co_return too_late(who);
        const auto share = (deadline - now()) / static_cast<long>(endpoints.size() - i);
        StreamSocket socket{executor};
        socket.open(endpoints[i].protocol(), last);
        if (last) continue;
        ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
        Watchdog<StreamSocket> watchdog{socket};
        const Watchdog<StreamSocket>::Guard guard{watchdog, now() + share};
        const auto [error] = co_await socket.async_connect(endpoints[i], quiet);
        last = guard.expired() ? error_code{asio::error::timed_out} : error;
        if (last == asio::error::operation_aborted) co_return base::fail(base::Errc::cancelled);
        if (last) continue;
        const int on = 1;
        ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        keep_alive(socket);
        co_return std::move(socket);
    }
    if (now() >= deadline) co_return too_late(who);
    co_return base::fail(base::Errc::source_unavailable, "cannot connect to " + who + ": " + last.message());
}

asio::awaitable<base::Result<StreamSocket>> connect_local(const std::string& path, base::Instant deadline) {
    if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path))
        co_return base::fail(base::Errc::source_unavailable,
                             "not a socket's path: \"" + path + "\" is empty or too long");
    const std::vector endpoints{GenericEndpoint{asio::local::stream_protocol::endpoint{path}}};
    auto socket = co_await dial(path, endpoints, deadline);
    co_return socket;
}

asio::awaitable<base::Result<StreamSocket>> connect_directly(const std::string& who, const Name& name,
                                                             const AddressRule& rule, base::Instant deadline) {
    const auto found = co_await look_up(who, name, deadline);
    if (!found) co_return base::fail(found.error());
    std::vector<GenericEndpoint> allowed;
    for (const auto& endpoint : *found)
        if (!rule || rule(endpoint.address())) allowed.emplace_back(endpoint);
    if (allowed.empty() && !found->empty()) co_return not_allowed(who, name.host, found->front().address());
    auto socket = co_await dial(who, allowed, deadline);
    co_return socket;
}

// What the peer's name stands for here, if it stands for anything: behind a proxy there needn't be a resolver.
asio::awaitable<base::Result<void>> judge_name(const HttpsPeer& peer, base::Instant deadline) {
    if (const auto address = evident_address(peer.host)) {
        if (peer.may_connect(*address)) co_return base::Result<void>{};
        co_return not_allowed(describe(peer), peer.host, *address);
    }
    const Name name{peer.host, peer.port, &peer.hosts};
    const auto found = co_await look_up(describe(peer), name, std::min(deadline, now() + resolver_patience));
    if (!found && found.error().code == base::Errc::cancelled) co_return base::fail(found.error());
    const auto allowed = [&peer](const tcp::endpoint& endpoint) { return peer.may_connect(endpoint.address()); };
    if (!found || found->empty() || std::ranges::any_of(*found, allowed)) co_return base::Result<void>{};
    co_return not_allowed(describe(peer), peer.host, found->front().address());
}

// The proxy resolves the name for itself; what can be told of it here is judged first.
asio::awaitable<base::Result<StreamSocket>> connect_through(const Proxy& proxy, const HttpsPeer& peer,
                                                            base::Instant deadline) {
    if (peer.may_connect)
        if (auto judged = co_await judge_name(peer, deadline); !judged) co_return base::fail(std::move(judged.error()));
    const AddressRule any;
    const Name name{proxy.host, proxy.port};
    auto socket = co_await connect_directly("the proxy " + describe(proxy), name, any, deadline);
    if (!socket) co_return base::fail(std::move(socket.error()));
    const auto authority = bracketed(peer.host) + ":" + peer.port;
    if (auto open = co_await open_tunnel(*socket, proxy, authority, deadline); !open)
        co_return base::fail(std::move(open.error()));
    co_return std::move(socket);
}

}  // namespace

std::string describe(const Peer& peer) {
    if (const auto* https = std::get_if<HttpsPeer>(&peer)) return url("https://", https->host, https->port);
    if (const auto* http = std::get_if<HttpPeer>(&peer)) return url("http://", http->host, http->port);
    return std::get<UnixPeer>(peer).path;
}

std::string host_header(const Peer& peer) {
    const auto join = [](const std::string& host, const std::string& port, std::string_view usual) {
        const auto name = host.find(':') != std::string::npos ? "[" + host + "]" : host;
        return port == usual ? name : name + ":" + port;
    };
    if (const auto* https = std::get_if<HttpsPeer>(&peer)) return join(https->host, https->port, "443");
    if (const auto* plain = std::get_if<HttpPeer>(&peer)) return join(plain->host, plain->port, "80");
    return "localhost";
}

asio::awaitable<base::Result<StreamSocket>> connect_to(const Peer& peer, base::Instant deadline) {
    const auto* https = std::get_if<HttpsPeer>(&peer);
    const auto* plain = std::get_if<HttpPeer>(&peer);
    base::Result<StreamSocket> socket = base::fail(base::Errc::internal);
    if (https && https->proxy) {
        socket = co_await connect_through(*https->proxy, *https, deadline);
    } else if (https) {
        const Name name{https->host, https->port, &https->hosts};
        socket = co_await connect_directly(describe(peer), name, https->may_connect, deadline);
    } else if (plain) {
        const Name name{plain->host, plain->port};
        socket = co_await connect_directly(describe(peer), name, plain->may_connect, deadline);
    } else {
        socket = co_await connect_local(std::get<UnixPeer>(peer).path, deadline);
    }
    co_return socket;
}

}  // namespace ghost::net
