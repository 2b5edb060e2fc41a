// The request and response every handler sees. No Beast here: a handler's
// translation unit compiles in seconds and is tested without a socket.
#pragma once

#include "base/context.hpp"

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

struct Request {
    Method method = Method::get;
    std::string path;  // as sent, without the query, still percent-encoded
    Query query;
    Headers headers;
    std::string body;
    base::Context context;
    std::map<std::string, std::string, std::less<>> params = {};  // the route's {name} parts, decoded

    [[nodiscard]] std::optional<std::string_view> query_value(std::string_view name) const noexcept;
};

using Chunk = std::shared_ptr<const std::string>;  // shared by all who are sent it
// Gives the next piece of the body, in turn; nullptr: the body is complete. Awaited by the session, which cancels it
// (`terminal`; it may then throw or return nullptr) when the peer is gone or the server shuts down. An exception cuts
// the connection, so that the peer takes the body for what it is: unfinished.
using BodySource = std::function<boost::asio::awaitable<Chunk>()>;

struct Response {
    unsigned status = 200;
    std::string body = {};
    std::string content_type = "application/json";
    Headers headers = {};
    bool close = false;      // end the connection after this response
    BodySource stream = {};  // empty: the body is `body`
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
