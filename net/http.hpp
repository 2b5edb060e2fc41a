// The request and response every handler sees. No Beast here: a handler's
// translation unit compiles in seconds and is tested without a socket.
#pragma once

#include "base/context.hpp"
#include "base/error.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ghost::net {

enum class Method : std::uint8_t { get, head, post, put, patch, del, options, other };
[[nodiscard]] std::string_view name_of(Method method) noexcept;  // "GET", "DELETE", ...
[[nodiscard]] Method method_from_name(std::string_view name) noexcept;

// A handful of headers: looked up without regard to case, kept in order.
class Headers {
public:
    void set(std::string_view name, std::string value);  // replaces
    void add(std::string_view name, std::string value);
    [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const noexcept;
    [[nodiscard]] auto begin() const noexcept { return items_.begin(); }
    [[nodiscard]] auto end() const noexcept { return items_.end(); }

private:
    std::vector<std::pair<std::string, std::string>> items_;
};

using Query = std::vector<std::pair<std::string, std::string>>;  // decoded, in the order given

// Gives the next piece of a request's body, never empty, as it comes; nullopt: that was all. Errors, which stay:
// deadline_exceeded (nothing came for too long), cancelled, source_unavailable (the connection broke off, or what comes
// is no body).
using BodyReader = std::function<boost::asio::awaitable<base::Result<std::optional<std::string>>>()>;

struct Request {
    Method method = Method::get;
    std::string path;  // as sent, without the query, still percent-encoded
    Query query;
    Headers headers;
    std::string body;
    base::Context context;
    std::map<std::string, std::string, std::less<>> params = {};  // the route's {name} parts, decoded
    // Of a route that takes its body as a stream (Server::stream_bodies): `body` is empty then. Called until nullopt or
    // an error, one call after the other, while the handler runs. What isn't read is left, and the connection then
    // closes.
    BodyReader body_stream = {};
    std::optional<std::uint64_t> body_size = {};  // of that stream, when the client told it

    [[nodiscard]] std::optional<std::string_view> query_value(std::string_view name) const noexcept;
};

using Chunk = std::shared_ptr<const std::string>;  // shared by all who are sent it
// Gives the next piece of the body, in turn; nullptr: the body is complete. Awaited by the session, which cancels it
// (`terminal`; it may then throw or return nullptr) when the peer is gone or the server shuts down. An exception cuts
// the connection, so that the peer takes the body for what it is: unfinished.
using BodySource = std::function<boost::asio::awaitable<Chunk>()>;

class WebSocket;
// The connection becomes a WebSocket, see websocket.hpp.
struct Upgrade {
    std::string key = {};       // the client's Sec-WebSocket-Key
    std::string protocol = {};  // agreed on; empty: none
    std::function<boost::asio::awaitable<void>(WebSocket&)> serve = {};
    std::string identity = {};  // among whose WebSockets it counts; empty: the connection's
};

struct Response {
    unsigned status = 200;
    std::string body = {};
    std::string content_type = "application/json";
    Headers headers = {};
    bool close = false;                   // end the connection after this response
    BodySource stream = {};               // empty: the body is `body`
    std::optional<Upgrade> upgrade = {};  // with status 101
};

using Handler = std::function<boost::asio::awaitable<Response>(Request)>;

// Splits "path?query"; a fault (bad percent-encoding, over-long) is nullopt.
struct Target {
    std::string path;
    Query query;
};
[[nodiscard]] std::optional<Target> parse_target(std::string_view target);
// nullopt for a malformed escape or a NUL, encoded or not.
[[nodiscard]] std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);
[[nodiscard]] std::string percent_encode(std::string_view text);

}  // namespace ghost::net
