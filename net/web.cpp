#include "net/web.hpp"

#include "base/clock.hpp"
#include "net/client.hpp"
#include "net/text.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>

namespace ghost::net {
namespace {

namespace asio = boost::asio;

constexpr int redirect_limit = 5;

bool is_redirect(unsigned status) {
    static constexpr std::array all{301U, 302U, 303U, 307U, 308U};
    return std::ranges::find(all, status) != all.end();
}

std::unexpected<WebFailure> for_good(base::Errc code, std::string detail) {
    return std::unexpected{WebFailure{{code, std::move(detail)}, true}};
}

WebFailure judged(base::Error error) {
    const bool permanent = error.code == base::Errc::address_not_allowed ||
                           error.code == base::Errc::validation_failed || error.facts.contains("certificate") ||
                           error.facts.contains("proxy");
    return {std::move(error), permanent};
}

// What another origin may be told.
Headers without_secrets(const Headers& headers) {
    static constexpr std::array<std::string_view, 4> secret = {"Authorization", "Cookie", "Proxy-Authorization",
                                                               "Host"};
    Headers kept;
    for (const auto& [name, value] : headers) {
        const auto same = [&name](std::string_view other) { return same_token(name, other); };
        if (std::ranges::none_of(secret, same)) kept.add(name, value);
    }
    return kept;
}

// One URL's answer as it comes in.
class Hop {
public:
    Hop(const WebRequest& request, const Url& url) : request_(request), url_(url) { answer_.url = to_string(url); }

    [[nodiscard]] ClientRequest ask() {
        ClientRequest asked;
        asked.target = url_.target;
        asked.headers = request_.headers;
        asked.timeout = request_.head_timeout;
        asked.stream_idle = request_.idle;
        asked.hand_on_every_status = true;
        asked.on_head = [this](const ClientResponse& head) { return take_head(head); };
        asked.on_body = [this](std::string_view piece) { return take(piece); };
        asked.ready_for_more = [this] { return ready(); };
        return asked;
    }
    // Where it sends us on to.
    [[nodiscard]] std::optional<std::string_view> location() const {
        return is_redirect(answer_.status) ? answer_.headers.find("Location") : std::nullopt;
    }
    [[nodiscard]] Web::Answer finish() {
        if (failure_) return std::unexpected{*std::move(failure_)};
        return std::move(answer_);
    }

private:
    [[nodiscard]] bool success() const { return answer_.status / 100 == 2; }

    bool take_head(const ClientResponse& head) {
        answer_.status = head.status;
        answer_.headers = head.headers;
        if (!success()) return false;  // what it says beside its status is for people
        started_ = std::chrono::steady_clock::now();
        const auto coding = answer_.headers.find("Content-Encoding");
        if (coding && !coding->empty() && !same_token(*coding, "identity"))
            return refuse(base::Errc::source_unavailable, "has a coded body though none was asked for");
        return !request_.on_head || request_.on_head(answer_);
    }
    bool take(std::string_view piece) {
        if (request_.on_body) return request_.on_body(piece);
        if (piece.size() > request_.max_body - answer_.body.size())
            return refuse(base::Errc::body_too_large,
                          "has a body of more than " + std::to_string(request_.max_body) + " bytes");
        answer_.body.append(piece);
        return true;
    }
    asio::awaitable<bool> ready() {
        if (request_.ready_for_more) co_return co_await request_.ready_for_more();
        if (request_.on_body || std::chrono::steady_clock::now() - started_ < request_.collect_limit) co_return true;
        failure_ = WebFailure{{base::Errc::deadline_exceeded, without_query(url_) + " answered too slowly"}};
        co_return false;
    }
    bool refuse(base::Errc code, const std::string& why) {
        failure_ = WebFailure{{code, "the answer of " + without_query(url_) + " " + why}, true};
        return false;
    }

    const WebRequest& request_;
    const Url& url_;
    WebResponse answer_;
    base::Instant started_{};  // its body
    std::optional<WebFailure> failure_;
};

class HttpsWeb final : public Web {
public:
    explicit HttpsWeb(WebSettings settings) : settings_(std::move(settings)) {
        if (!settings_.tls) throw std::invalid_argument{"make_web needs a TLS context"};
    }

    asio::awaitable<Answer> get(WebRequest request) override {
        const bool throws = co_await asio::this_coro::throw_if_cancelled();
        co_await asio::this_coro::throw_if_cancelled(false);
        auto answer = co_await follow(request);
        co_await asio::this_coro::throw_if_cancelled(throws);
        co_return answer;
    }

private:
    asio::awaitable<Answer> follow(WebRequest& request) {
        auto url = parse_url(request.url);
        if (!url) co_return std::unexpected{WebFailure{std::move(url.error()), true}};
        if (url->scheme != "https")
            co_return for_good(base::Errc::validation_failed, without_query(*url) + " is not an https:// URL");
        request.headers.set("Accept-Encoding", "identity");
        for (int redirects = 0;; ++redirects) {
            Hop hop{request, *url};
            if (auto failure = co_await visit(hop, *url)) co_return std::unexpected{*std::move(failure)};
            const auto location = hop.location();
            if (!location) co_return hop.finish();
            auto next = next_after(*url, *location);
            if (!next) co_return std::unexpected{std::move(next.error())};
            if (redirects == redirect_limit)
                co_return for_good(base::Errc::source_unavailable,
                                   "more than 5 redirects; the last was to " + without_query(*next));
            if (!same_origin(*url, *next)) request.headers = without_secrets(request.headers);
            url = *std::move(next);
        }
    }

    asio::awaitable<std::optional<WebFailure>> visit(Hop& hop, const Url& url) {
        const auto state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() != asio::cancellation_type::none) co_return WebFailure{{base::Errc::cancelled, {}}};
        HttpsPeer peer{.host = url.host, .port = url.port, .tls = settings_.tls};
        peer.proxy = proxy_for(settings_.proxy, url);
        peer.hosts = settings_.hosts;
        if (!settings_.allow_private_addresses) peer.may_connect = is_public;
        const auto client = make_client(std::move(peer));
        auto response = co_await client->send(hop.ask());
        if (!response) co_return judged(std::move(response.error()));
        co_return std::nullopt;
    }

    static std::expected<Url, WebFailure> next_after(const Url& url, std::string_view location) {
        auto next = resolve(url, location);
        if (!next)
            return for_good(base::Errc::source_unavailable,
                            without_query(url) + " redirects to what is " + next.error().detail);
        if (next->scheme != "https")
            return for_good(base::Errc::source_unavailable,
                            without_query(url) + " redirects to " + without_query(*next) + ", which is not https://");
        return *std::move(next);
    }

    WebSettings settings_;
};

}  // namespace

std::unique_ptr<Web> make_web(WebSettings settings) { return std::make_unique<HttpsWeb>(std::move(settings)); }

}  // namespace ghost::net
