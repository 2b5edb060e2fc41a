// GET over HTTPS from anywhere: follows redirects, goes through proxies, and talks to public addresses only unless told
// otherwise.
#pragma once

#include "base/error.hpp"
#include "net/client.hpp"
#include "net/http.hpp"
#include "net/proxy.hpp"
#include "net/tls.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstddef>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace ghost::net {

struct WebResponse {
    unsigned status = 0;
    Headers headers = {};
    std::string body = {};  // collected, when there was no on_body and the answer is a 2xx
    std::string url = {};   // the one that answered, after redirects
};
struct WebFailure {
    base::Error error;
    // Trying the same URL again will not help: bad URL, address_not_allowed, a certificate that isn't trusted or isn't
    // valid for the host, a proxy that won't let us through, redirect to plain HTTP, more than 5 redirects, a coded
    // body, body_too_large.
    bool permanent = false;
};
struct WebRequest {
    std::string url;  // https://
    // Authorization, Cookie and Proxy-Authorization are dropped when a redirect leaves the origin (host and port).
    Headers headers = {};
    std::chrono::milliseconds head_timeout{30'000};    // of each hop: connecting, handshake, until the answer's head
    std::chrono::milliseconds idle{60'000};            // for each wait for a piece of the body
    std::chrono::milliseconds collect_limit{300'000};  // for all of a collected body
    std::size_t max_body = 1 << 20;                    // of a collected body; more is body_too_large
    // Of the 2xx that ends the chain of redirects; as in ClientRequest.
    std::function<bool(const WebResponse& head)> on_head = {};
    std::function<bool(std::string_view piece)> on_body = {};
    std::function<boost::asio::awaitable<bool>()> ready_for_more = {};
};

class Web {
public:
    using Answer = std::expected<WebResponse, WebFailure>;
    virtual ~Web() = default;
    // A status of 400 and more is an answer, too. Errors: validation_failed (not an https:// URL), source_unavailable,
    // address_not_allowed, deadline_exceeded, body_too_large, cancelled. Sentences show URLs without their queries.
    [[nodiscard]] virtual boost::asio::awaitable<Answer> get(WebRequest request) = 0;
};

struct WebSettings {
    TlsContext tls;  // whom to trust
    bool allow_private_addresses = false;
    ProxySettings proxy = {};
    Hosts hosts = {};  // as in HttpsPeer
};
[[nodiscard]] std::unique_ptr<Web> make_web(WebSettings settings);

}  // namespace ghost::net
