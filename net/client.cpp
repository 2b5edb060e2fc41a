#include "net/client.hpp"

#include "base/cancelled.hpp"
#include "net/connect.hpp"
#include "net/text.hpp"
#include "net/transport.hpp"
#include "net/upload.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/system/system_error.hpp>

#include <algorithm>
#include <list>
#include <memory>
#include <optional>
#include <vector>

namespace ghost::net {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::uint32_t header_limit = 64 * 1024;
constexpr int interim_limit = 8;  // 1xx responses before the final one
constexpr std::size_t input_limit = 2 * std::size_t{header_limit};
constexpr std::size_t usual_room = 16 * 1024;
constexpr std::size_t stream_room = 64 * 1024;  // several TLS records, so that a large body takes few turns of the loop

base::Result<std::string> to_wire(const Peer& peer, const ClientRequest& request) {
    const bool bad_target =
        request.target.empty() || has_control(request.target) || request.target.find(' ') != std::string::npos;
    if (bad_target || request.method == Method::other)
        return base::fail(base::Errc::validation_failed, "not a request that can be sent: " + request.target);
    std::string text;
    text.append(name_of(request.method)).append(" ").append(request.target).append(" HTTP/1.1\r\n");
    if (!request.headers.find("Host")) text.append("Host: ").append(host_header(peer)).append("\r\n");
    if (!request.headers.find("User-Agent")) text.append("User-Agent: ghost-agent/" GHOST_VERSION "\r\n");
    const bool streams = static_cast<bool>(request.body_source);
    const bool has_body = streams || !request.body.empty();
    if (has_body && !request.headers.find("Content-Type"))
        text.append("Content-Type: ").append(streams ? "application/octet-stream" : "application/json").append("\r\n");
    const bool wants_length =
        has_body || request.method == Method::post || request.method == Method::put || request.method == Method::patch;
    if (streams && !request.body_size)
        text.append("Transfer-Encoding: chunked\r\n");
    else if (wants_length)
        text.append("Content-Length: ")
            .append(std::to_string(streams ? *request.body_size : request.body.size()))
            .append("\r\n");
    for (const auto& [name, value] : request.headers) {
        if (same_token(name, "Content-Length") || same_token(name, "Transfer-Encoding")) continue;
        if (!is_token(name) || has_control(value))
            return base::fail(base::Errc::validation_failed, "not a header that can be sent: " + name);
        text.append(name).append(": ").append(value).append("\r\n");
    }
    return text.append("\r\n").append(streams ? std::string{} : request.body);
}

// May be sent again though the server may have acted on it.
bool repeatable(const ClientRequest& request) {
    if (request.body_source) return false;
    return (request.method != Method::post && request.method != Method::patch) ||
           request.headers.find("Idempotency-Key");
}

// An answer's body, collected or handed on.
struct AnswerBody {
    struct value_type {
        const ClientRequest* request = nullptr;
        std::string text = {};
        bool handed_on = false;
        bool stopped = false;  // by who it is handed to
    };

    class reader {
    public:
        template <class Head>
        reader(Head&, value_type& body) : body_(body) {}
        void init(const boost::optional<std::uint64_t>&, error_code&) {}
        std::size_t put(asio::const_buffer bytes, error_code& error) {
            const std::string_view piece{static_cast<const char*>(bytes.data()), bytes.size()};
            if (body_.handed_on) {
                body_.stopped = !piece.empty() && !body_.request->on_body(piece);
                if (body_.stopped) error = asio::error::operation_aborted;
            } else if (piece.size() > body_.request->max_body - body_.text.size()) {
                error = http::error::body_limit;
            } else {
                body_.text.append(piece);
            }
            return piece.size();
        }
        void finish(error_code&) {}

    private:
        value_type& body_;
    };
};
using AnswerParser = http::response_parser<AnswerBody>;

ClientResponse head_of(const http::response<AnswerBody>& message) {
    ClientResponse response{.status = message.result_int(), .headers = {}, .body = {}};
    for (const auto& field : message) {
        const auto name = field.name_string();
        response.headers.add({name.data(), name.size()}, std::string{field.value()});
    }
    return response;
}

struct Failure {
    base::Error error;
    bool unanswered = false;  // the request may be sent again on another connection
};
using Attempt = std::expected<ClientResponse, Failure>;

class HttpClient final : public Client {
public:
    explicit HttpClient(Peer peer) : peer_(std::move(peer)) {}

    asio::awaitable<base::Result<ClientResponse>> send(ClientRequest request) override {
        const bool throws = co_await asio::this_coro::throw_if_cancelled();
        co_await asio::this_coro::throw_if_cancelled(false);
        const auto deadline = std::chrono::steady_clock::now() + request.timeout;
        const bool mine = co_await take_turn(deadline);
        base::Result<ClientResponse> result = base::fail(base::Errc::cancelled);
        if (mine) {
            const Turn turn{*this};
            try {
                result = co_await exchange(request, deadline);
            } catch (...) {  // what ready_for_more threw, in the middle of an answer
                transport_.reset();
                throw;
            }
        } else if (std::chrono::steady_clock::now() >= deadline) {
            result = base::fail(too_late());
        }
        co_await asio::this_coro::throw_if_cancelled(throws);
        co_return result;
    }

private:
    struct Waiter {
        asio::steady_timer wake;  // runs out at the request's deadline
        bool woken = false;
    };

    // Requests go in turn; the longest waiting one is woken when one is through.
    struct Turn {
        HttpClient& client;
        ~Turn() {
            client.busy_ = false;
            if (client.waiters_.empty()) return;
            client.waiters_.front()->woken = true;
            client.waiters_.front()->wake.cancel();
        }
    };

    // False at the deadline or when cancelled.
    asio::awaitable<bool> take_turn(base::Instant deadline) {
        const auto executor = co_await asio::this_coro::executor;
        while (busy_) {
            Waiter waiter{asio::steady_timer{executor, deadline}};
            const auto place = waiters_.insert(waiters_.end(), &waiter);
            const auto leave = [this, place](void*) { waiters_.erase(place); };
            const std::unique_ptr<void, decltype(leave)> in_queue{&waiter, leave};
            co_await waiter.wake.async_wait(quiet);
            if (!waiter.woken) co_return false;
        }
        busy_ = true;
        co_return true;
    }

    [[nodiscard]] base::Error too_late() const {
        return {base::Errc::deadline_exceeded, describe(peer_) + " didn't answer in time"};
    }

    [[nodiscard]] base::Error fell_silent() const {
        return {base::Errc::deadline_exceeded, describe(peer_) + " fell silent in the middle of its answer"};
    }

    [[nodiscard]] Failure failed(const Io& io, std::string_view doing, bool unanswered) const {
        if (io.timed_out) return {too_late()};
        if (io.error == asio::error::operation_aborted) return {{base::Errc::cancelled, {}}};
        const bool ended = io.error == asio::error::eof || io.error == asio::ssl::error::stream_truncated;
        auto why = ended ? "the connection was closed before the response was complete" : io.error.message();
        base::Error error{base::Errc::source_unavailable, std::string{doing} + " " + describe(peer_) + ": " + why};
        if (const auto alert = certificate_refused(io.error); !alert.empty())
            error.facts["certificate_refused"] = alert;
        return {std::move(error), unanswered};
    }

    asio::awaitable<base::Result<void>> open(const ClientRequest& request, base::Instant end) {
        const auto deadline =
            request.connect_timeout ? std::min(end, std::chrono::steady_clock::now() + *request.connect_timeout) : end;
        auto socket = co_await connect_to(peer_, deadline);
        if (!socket) co_return base::fail(socket.error());
        const auto* https = std::get_if<HttpsPeer>(&peer_);
        auto transport = make_client_transport(*std::move(socket), https ? https->tls : nullptr,
                                               https ? https->host : std::string{});
        if (auto ready = co_await transport->handshake(deadline); !ready) {
            auto error = ready.error();
            error.detail = "cannot connect to " + describe(peer_) + ": " + error.detail;
            co_return base::fail(std::move(error));
        }
        input_.clear();
        transport_ = std::move(transport);
        co_return base::Result<void>{};
    }

    asio::awaitable<base::Result<ClientResponse>> exchange(const ClientRequest& request, base::Instant deadline) {
        const auto text = to_wire(peer_, request);
        if (!text) co_return base::fail(text.error());
        // What can be sent only once isn't risked on a connection that the server may be about to close.
        if (transport_ && (request.body_source || transport_->stale())) transport_.reset();
        const bool reused = transport_ != nullptr;
        if (!reused) {
            if (auto opened = co_await open(request, deadline); !opened) co_return base::fail(opened.error());
        }
        auto result = co_await attempt(*text, request, deadline);
        if (!result && reused && result.error().unanswered) {
            if (auto opened = co_await open(request, deadline); !opened) co_return base::fail(opened.error());
            result = co_await attempt(*text, request, deadline);
        }
        if (!result) co_return base::fail(std::move(result.error().error));
        co_return *std::move(result);
    }

    // Leaves the connection open only when it can carry another request.
    asio::awaitable<Attempt> attempt(const std::string& text, const ClientRequest& request, base::Instant deadline) {
        const auto sent = co_await transport_->write(asio::buffer(text), deadline);
        // A server that refuses a large body may answer and close before it has read all of it.
        if (!sent && (sent.timed_out || sent.error == asio::error::operation_aborted || sent.bytes == 0)) {
            transport_.reset();
            co_return std::unexpected{failed(sent, "cannot send to", sent.bytes == 0)};
        }
        bool whole = static_cast<bool>(sent);
        if (whole && request.body_source) {
            const auto before = std::chrono::steady_clock::now();
            Upload upload{co_await asio::this_coro::executor, *transport_, request, input_};
            whole = co_await upload.run();
            deadline += std::chrono::steady_clock::now() - before;
            if (auto fault = upload.fault()) {
                transport_.reset();
                co_return std::unexpected{failed_to_upload(*std::move(fault))};
            }
        }
        auto response = co_await read_response(request, deadline);
        if (!response || !whole) transport_.reset();
        co_return response;
    }

    [[nodiscard]] Failure failed_to_upload(Upload::Fault fault) const {
        if (fault.error) return {*std::move(fault.error)};
        if (fault.io.timed_out)
            return {{base::Errc::deadline_exceeded, describe(peer_) + " took no more of the request's body"}};
        return failed(fault.io, "cannot send to", false);
    }

    asio::awaitable<Attempt> read_response(const ClientRequest& request, base::Instant deadline) {
        bool unanswered = input_.empty();
        for (int interim = 0; interim < interim_limit; ++interim) {
            AnswerParser parser;
            auto& body = parser.get().body();
            body.request = &request;
            parser.header_limit(header_limit);
            parser.body_limit(boost::none);  // digest() and AnswerBody see to it
            parser.skip(request.method == Method::head);
            std::string_view fresh;  // in room_
            while (true) {
                if (auto fault = digest(parser, fresh)) co_return std::unexpected{Failure{*std::move(fault)}};
                if (parser.is_done() || body.stopped) break;
                if (body.handed_on && request.ready_for_more) {
                    const auto ready = co_await wait_until_ready(request);
                    if (!ready) co_return std::unexpected{Failure{ready.error()}};
                    body.stopped = !*ready;
                    if (body.stopped) break;
                }
                // While it wasn't waiting: no read is ended by that.
                if (co_await base::is_cancelled()) co_return std::unexpected{Failure{{base::Errc::cancelled, {}}}};
                const auto io = co_await read(body.handed_on, request, deadline);
                fresh = {room_.data(), io.bytes};
                unanswered = unanswered && io.bytes == 0;
                if (io) continue;
                // Without a length a body ends with the connection; TLS's goodbye tells its end from a cut.
                if (io.error == asio::error::eof && parser.is_header_done() && parser.need_eof()) {
                    error_code error;
                    parser.put_eof(error);
                    if (!error) break;
                }
                if (io.timed_out && body.handed_on) co_return std::unexpected{Failure{fell_silent()}};
                const auto* const doing = body.handed_on ? "an answer broke off that came from" : "no answer from";
                co_return std::unexpected{failed(io, doing, unanswered && repeatable(request))};
            }
            if (parser.get().result_int() / 100 == 1 && parser.get().result_int() != 101) continue;
            co_return finished(parser.get(), parser.keep_alive() && !body.stopped);
        }
        co_return std::unexpected{
            Failure{{base::Errc::source_unavailable, describe(peer_) + " sent no final HTTP response"}}};
    }

    // Whether whoever is handed the body wants more of it.
    asio::awaitable<base::Result<bool>> wait_until_ready(const ClientRequest& request) {
        bool ready = false;
        try {
            ready = co_await request.ready_for_more();
        } catch (const boost::system::system_error& fault) {
            if (fault.code() != asio::error::operation_aborted) throw;
        }
        co_await asio::this_coro::throw_if_cancelled(false);
        const auto state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() != asio::cancellation_type::none) co_return base::fail(base::Errc::cancelled);
        co_return ready;
    }

    // Into room_.
    asio::awaitable<Io> read(bool streamed, const ClientRequest& request, base::Instant deadline) {
        if (const auto size = streamed ? stream_room : usual_room; room_.size() < size) room_.resize(size);
        const auto until = streamed ? std::chrono::steady_clock::now() + request.stream_idle : deadline;
        auto io = co_await transport_->read_some(asio::buffer(room_), until);
        if (io && streamed && io.bytes < room_.size())
            io.bytes += transport_->read_ready(asio::buffer(room_) + io.bytes);
        co_return io;
    }

    // Parses what was left and what is fresh; the fault of an answer that is none, or is too large.
    std::optional<base::Error> digest(AnswerParser& parser, std::string_view fresh) {
        error_code error;
        const auto put = [&] {
            if (!input_.empty()) {
                input_.append(std::exchange(fresh, {}));
                input_.erase(0, parser.put(asio::buffer(input_), error));
            } else if (!fresh.empty()) {  // the body of a stream passes without a copy
                fresh.remove_prefix(parser.put(asio::buffer(fresh), error));
            }
        };
        auto& body = parser.get().body();
        const bool head_was_here = parser.is_header_done();
        put();
        if (!error && !head_was_here && parser.is_header_done()) {
            begin_body(parser, error);
            parser.eager(true);
            if (!error && !body.stopped && !parser.is_done()) put();
        }
        input_.append(fresh);
        if (body.stopped) return std::nullopt;
        if (error == http::error::body_limit)
            return base::Error{base::Errc::body_too_large, "the answer of " + describe(peer_) + " is larger than " +
                                                               std::to_string(body.request->max_body) + " bytes"};
        if ((error && error != http::error::need_more) || input_.size() > input_limit)
            return base::Error{base::Errc::source_unavailable, describe(peer_) + " sent no well-formed HTTP response"};
        return std::nullopt;
    }

    static void begin_body(AnswerParser& parser, error_code& error) {
        auto& body = parser.get().body();
        const auto& request = *body.request;
        const auto kind = parser.get().result_int() / 100;
        const bool wanted = kind == 2 || (request.hand_on_every_status && kind != 1);
        body.handed_on = request.on_body && wanted;
        const auto length = parser.content_length();
        if (!body.handed_on && !parser.is_done() && length && *length > request.max_body)
            error = http::error::body_limit;
        if (request.on_head && wanted && !error) body.stopped = !request.on_head(head_of(parser.get()));
    }

    ClientResponse finished(http::response<AnswerBody>& message, bool keep_alive) {
        auto response = head_of(message);
        response.body = std::move(message.body().text);
        if (!keep_alive || !input_.empty()) transport_.reset();
        return response;
    }

    Peer peer_;
    std::unique_ptr<Transport> transport_;  // null: not connected
    std::string input_;                     // read beyond what was parsed
    std::vector<char> room_;                // what is read into
    std::list<Waiter*> waiters_;
    bool busy_ = false;
};

}  // namespace

std::unique_ptr<Client> make_client(Peer peer) { return std::make_unique<HttpClient>(std::move(peer)); }

}  // namespace ghost::net
