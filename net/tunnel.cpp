#include "net/tunnel.hpp"

#include "base/base64.hpp"
#include "net/watchdog.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>

#include <algorithm>
#include <array>

namespace ghost::net {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::uint32_t head_limit = 16 * 1024;

std::string wish(const Proxy& proxy, const std::string& authority) {
    auto text = "CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority +
                "\r\nUser-Agent: ghost-agent/" GHOST_VERSION "\r\n";
    if (!proxy.credentials.empty()) text += "Proxy-Authorization: Basic " + base::to_base64(proxy.credentials) + "\r\n";
    return text + "\r\n";
}

// Judges what the proxy answered.
class Answer {
public:
    Answer() {
        parser_.header_limit(head_limit);
        parser_.skip(true);  // after a success comes no body, whatever the headers say
    }
    // The fault, if it is one.
    std::optional<std::string> take(std::string_view bytes) {
        input_.append(bytes);
        error_code error;
        input_.erase(0, parser_.put(asio::buffer(input_), error));
        if ((error && error != http::error::need_more) || (!complete() && input_.size() > head_limit))
            return "it sent no well-formed HTTP response";
        if (!complete()) return std::nullopt;
        const auto& head = parser_.get();
        if (head.result_int() / 100 != 2) {
            auto reason = std::to_string(head.result_int()) + " " + std::string{head.reason()};
            std::ranges::replace_if(reason, [](char c) { return c < 0x20 || c > 0x7E; }, '?');
            return reason;
        }
        if (!input_.empty()) return "it spoke before it was spoken to";
        return std::nullopt;
    }
    [[nodiscard]] bool complete() const { return parser_.is_header_done(); }
    // A no that stays one: the proxy wants to know who we are, or doesn't let us through.
    [[nodiscard]] bool refused_for_good() const {
        const auto status = complete() ? parser_.get().result_int() : 0U;
        return status == 401 || status == 403 || status == 405 || status == 407;
    }

private:
    http::response_parser<http::empty_body> parser_;
    std::string input_;
};

}  // namespace

asio::awaitable<base::Result<void>> open_tunnel(StreamSocket& socket, const Proxy& proxy, const std::string& authority,
                                                base::Instant deadline) {
    const auto who = "the proxy " + describe(proxy);
    const auto failed = [&](const std::string& why) {
        return base::fail(base::Errc::source_unavailable, who + " opened no way to " + authority + ": " + why);
    };
    if (std::ranges::any_of(authority, [](char c) { return c <= 0x20 || c >= 0x7F; }))
        co_return failed("that is not a host's name");
    Watchdog<StreamSocket> watchdog{socket};
    const Watchdog<StreamSocket>::Guard guard{watchdog, deadline};
    const auto ended = [&](error_code error) -> std::unexpected<base::Error> {
        if (guard.expired()) return base::fail(base::Errc::deadline_exceeded, who + " didn't answer in time");
        if (error == asio::error::operation_aborted) return base::fail(base::Errc::cancelled);
        return failed(error == asio::error::eof ? "it closed the connection" : error.message());
    };
    const auto text = wish(proxy, authority);
    const auto [unsent, written] = co_await asio::async_write(socket, asio::buffer(text), quiet);
    if (unsent) co_return ended(unsent);
    Answer answer;
    std::array<char, 4096> room;
    while (!answer.complete()) {
        const auto [error, count] = co_await socket.async_read_some(asio::buffer(room), quiet);
        if (error) co_return ended(error);
        if (const auto fault = answer.take({room.data(), count})) {
            auto no = failed(*fault);
            if (answer.refused_for_good()) no.error().facts["proxy"] = *fault;
            co_return no;
        }
    }
    co_return base::Result<void>{};
}

}  // namespace ghost::net
