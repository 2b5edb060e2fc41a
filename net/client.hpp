// HTTP/1.1 client over TLS or a Unix socket: one connection, requests in turn.
#pragma once

#include "base/error.hpp"
#include "net/address_rules.hpp"
#include "net/http.hpp"
#include "net/proxy.hpp"
#include "net/tls.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ghost::net {

// Names that aren't looked up, and their addresses; none: there is no such host.
using Hosts = std::map<std::string, std::vector<boost::asio::ip::address>, std::less<>>;

struct UnixPeer {
    std::string path;
};
struct HttpsPeer {
    std::string host;  // verified against the certificate, and sent as SNI
    std::string port = "443";
    TlsContext tls;
    AddressRule may_connect = {};
    std::optional<Proxy> proxy = {};  // CONNECT through it
    Hosts hosts = {};
};
struct HttpPeer {  // plain; for loopback
    std::string host;
    std::string port = "80";
    AddressRule may_connect = {};
};
using Peer = std::variant<UnixPeer, HttpsPeer, HttpPeer>;

struct ClientResponse {
    unsigned status = 0;
    Headers headers;
    std::string body;
};
struct ClientRequest {
    Method method = Method::get;
    std::string target = "/";
    Headers headers;
    std::string body;  // sent as application/json unless headers say otherwise
    // A body that is sent while it comes into being, instead of `body`: the next piece, nullopt at its end; as
    // application/octet-stream unless headers say otherwise. Awaited without a limit; a failure ends the exchange with
    // its error. `body_size`: what all of it will be, when that is known (another is a fault: io_error); else it goes
    // in chunks. Each piece has `stream_idle` to be taken; `timeout` is for the rest. An answer that comes before the
    // end of the body cancels the source, and is the answer. Such a request has a new connection, and is never sent
    // twice.
    std::function<boost::asio::awaitable<base::Result<std::optional<std::string>>>()> body_source = {};
    std::optional<std::uint64_t> body_size = {};
    std::chrono::milliseconds timeout{30'000};  // for the whole exchange, connecting included
    // For connecting and the handshake, within `timeout`.
    std::optional<std::chrono::milliseconds> connect_timeout = {};
    std::size_t max_body = 16 * 1024 * 1024;
    // Is handed the body of a 2xx answer piece by piece as it comes, whatever its size; the response's `body` stays
    // empty. False ends the exchange, without a fault, and the connection. Must not throw. `timeout` is then for all
    // until the answer's head is here, `stream_idle` for each wait after it. When the body breaks off, what was handed
    // on is the beginning of it all the same.
    std::function<bool(std::string_view piece)> on_body = {};
    std::chrono::milliseconds stream_idle{45'000};
    // Is handed status and headers of a 2xx answer before its first piece. False as with on_body. Must not throw.
    std::function<bool(const ClientResponse& head)> on_head = {};
    // Awaited before each read of a body that on_body is handed, so that whoever takes it sets the pace: the time in it
    // counts against no limit. False as with on_body. A cancellation of the exchange reaches what it awaits; it runs
    // with throw_if_cancelled(false).
    std::function<boost::asio::awaitable<bool>()> ready_for_more = {};
    bool hand_on_every_status = false;  // not only 2xx
};

// Facts of its errors: `certificate` says in OpenSSL's words what was wrong with the server's ("certificate has
// expired", "certificate is not yet valid", "IP address mismatch"), as this machine's clock sees it;
// `certificate_refused` is the alert with which the server refused ours ("certificate_expired", "unknown_ca": see
// certificate_refused() in tls.hpp). Connects on first use, keeps the connection while the server does, and opens it
// again (once, for requests that never reached the server) when it was closed meanwhile. Errors: source_unavailable
// (can't resolve, connect, verify, or the answer broke off; the sentence says which and to whom), address_not_allowed,
// deadline_exceeded, cancelled, body_too_large.
class Client {
public:
    virtual ~Client() = default;
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<ClientResponse>> send(ClientRequest request) = 0;
};
[[nodiscard]] std::unique_ptr<Client> make_client(Peer peer);

}  // namespace ghost::net
