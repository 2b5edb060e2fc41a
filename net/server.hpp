// HTTP/1.1 over TLS, plain TCP and Unix sockets: connections in, Requests out,
// Responses back. Every wait has a limit and every buffer a bound.
#pragma once

#include "base/error.hpp"
#include "base/log.hpp"
#include "net/http.hpp"
#include "net/tls.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>

namespace ghost::net {

struct TcpEndpoint {
    std::string address;     // numeric, "127.0.0.1" or "::1"
    std::uint16_t port = 0;  // 0: any free one
};
struct UnixEndpoint {
    std::string path;
    unsigned mode = 0660;
    std::string group;  // its group, and who of it is admin; empty or unknown: root's only
};
using Endpoint = std::variant<TcpEndpoint, UnixEndpoint>;
// "127.0.0.1:9092", "[::1]:9092", ":9092" (all addresses) -> TcpEndpoint; the fault says what is allowed.
[[nodiscard]] base::Result<TcpEndpoint> parse_tcp_endpoint(std::string_view text);
[[nodiscard]] bool is_loopback(const TcpEndpoint& endpoint);
[[nodiscard]] std::string to_string(const Endpoint& endpoint);

struct ServerLimits {
    std::size_t header_bytes = 16 * 1024;       // more: 431
    std::size_t body_bytes = 1024 * 1024;       // more: 413
    std::size_t connections = 1024;             // more wait in the kernel's backlog
    std::size_t in_flight_per_identity = 64;    // more: 429 with Retry-After. Of strangers: requests with a body
    std::size_t streams_per_identity = 16;      // apart from those; more: 429. Strangers share one identity
    std::size_t websockets_per_identity = 256;  // apart from both; more: 429
    std::chrono::milliseconds handshake{10'000};
    std::chrono::milliseconds idle{75'000};          // between requests
    std::chrono::milliseconds header{10'000};        // from a request's first byte to the end of its headers: 408
    std::chrono::milliseconds body{30'000};          // for the whole body: 408; of a streamed one for each wait
    std::chrono::milliseconds write{30'000};         // for the whole response
    std::chrono::milliseconds stream_write{10'000};  // for each piece of a streamed body
    // Between looks at whether those who wait for an answer still do: the request of one who hung up, or closed even
    // half of the connection, is given up, and its place in flight is free again; a stream ends. What it began goes on.
    std::chrono::milliseconds hang_up_check{1'000};
    std::chrono::milliseconds websocket_ping{20'000};  // as WebSocket says
    std::chrono::milliseconds websocket_silence{60'000};
};

// One listening socket and its connections, as the rest of the daemon sees it.
class Listener {
public:
    virtual ~Listener() = default;
    [[nodiscard]] virtual std::string address() const = 0;  // with the port that was bound
    [[nodiscard]] virtual std::size_t connections() const = 0;
    // Certificates for connections from now on.
    virtual void use_tls(TlsContext tls) = 0;
    // The end of this one, in the two phases of shut_down(); returns at once. Its address is free from here on.
    virtual void close(std::chrono::milliseconds grace) = 0;
};

// The sockets seam: the daemon gets HttpServer, tests may hand it one in memory.
class Server {
public:
    virtual ~Server() = default;

    // Binds and accepts from now on; without `tls` the connections are plain. A Unix socket left by a dead process is
    // replaced, one that somebody answers on is a fault. Errors: io_error naming the address ("address in use").
    // `handler` runs on the loop; its exceptions become a 500 that leaks nothing.
    [[nodiscard]] virtual base::Result<std::shared_ptr<Listener>> listen(Endpoint endpoint, TlsContext tls,
                                                                         Handler handler) = 0;
    // Two-phase end: acceptors close at once, idle connections too; a request at hand is finished and answered with
    // `Connection: close`, a stream ends as if it were complete; whatever is left after `grace` is cut. Resumes when no
    // connection is left.
    [[nodiscard]] virtual boost::asio::awaitable<void> shut_down(std::chrono::milliseconds grace) = 0;
    [[nodiscard]] virtual std::size_t connections() const = 0;

    // Told of each request that was refused before any handler saw it: malformed, too large, too slow, too many; and of
    // one whose handler answered with a stream too many.
    using Refused = std::function<void(Method method, unsigned status)>;
    virtual void on_refused(Refused refused) = 0;

    // Which requests' bodies are handed on as they come (Request::body_stream), however large; asked with the head.
    using StreamsBody = std::function<bool(Method method, std::string_view path)>;
    virtual void stream_bodies(StreamsBody which) = 0;
};

// Make what a request came without, or with none that is valid: its X-Request-Id and its traceparent.
struct RequestIds {
    std::function<std::string()> request_id;
    std::function<std::string()> traceparent;
};
[[nodiscard]] std::unique_ptr<Server> make_http_server(boost::asio::any_io_executor executor, ServerLimits limits,
                                                       base::Log& log, RequestIds ids);

}  // namespace ghost::net
