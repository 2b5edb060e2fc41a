#include "net/session.hpp"

#include "net/problem.hpp"
#include "net/response_text.hpp"
#include "net/text.hpp"
#include "net/websocket_end.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <exception>
#include <optional>
#include <string_view>
#include <utility>

namespace ghost::net {
namespace {

namespace asio = boost::asio;
using Step = RequestParser::Step;

// How long a goodbye may take: long when an answer is under way, short when the connection was idle.
constexpr std::chrono::milliseconds linger{2'000};
constexpr std::chrono::milliseconds idle_linger{200};
constexpr std::string_view continue_line = "HTTP/1.1 100 Continue\r\n\r\n";

base::Instant in(std::chrono::milliseconds span) { return std::chrono::steady_clock::now() + span; }

}  // namespace

Session::Session(std::shared_ptr<ServerCore> core, std::unique_ptr<Transport> transport,
                 std::shared_ptr<const Handler> handler, base::Principal who, std::string peer)
    : core_(std::move(core)),
      transport_(std::move(transport)),
      handler_(std::move(handler)),
      who_(std::move(who)),
      peer_(std::move(peer)),
      parser_(core_->limits.header_bytes, core_->limits.body_bytes,
              [&streams = core_->streams_body](Method method, std::string_view path) {
                  return streams && streams(method, path);
              }) {}

void Session::drain() noexcept {
    draining_ = true;
    if (idle_) transport_->interrupt();
    if (body_stream_) body_stream_->stop();
    if (websocket_) websocket_->stop();
}

void Session::abort() noexcept {
    aborted_ = true;
    transport_->abort();
    if (body_stream_) body_stream_->stop();
}

bool Session::abandoned(base::Instant since) const noexcept { return handled_since_ < since && transport_->hung_up(); }

asio::awaitable<void> Session::run() {
    idle_ = true;
    const auto ready = co_await transport_->handshake(in(core_->limits.handshake));
    idle_ = false;
    if (aborted_) co_return;
    if (!ready) {
        const auto code = ready.error().code;
        core_->log.info("TLS handshake failed", {{"peer", peer_}, {"reason", ready.error().detail}});
        // So that the alert that says why arrives.
        if (code == base::Errc::source_unavailable) co_await transport_->finish(in(idle_linger));
        transport_->abort();
        co_return;
    }
    if (auto name = transport_->certificate_name()) who_ = {base::Principal::Kind::certificate, *std::move(name), true};

    while (!draining_ && !aborted_) {
        const bool go_on = co_await serve_one();
        if (!go_on) break;
    }
    if (!aborted_ && say_goodbye_) co_await transport_->finish(in(parser_.started() ? linger : idle_linger));
    transport_->abort();
}

asio::awaitable<std::optional<Step>> Session::await_request() {
    const auto deadline = in(core_->limits.idle);
    while (true) {
        const auto step = parser_.advance();
        if (step != Step::need_more || parser_.started()) co_return step;
        if (draining_) co_return std::nullopt;
        const auto room = parser_.prepare();
        idle_ = true;
        const auto io = co_await transport_->read_some(asio::buffer(room.data(), room.size()), deadline);
        idle_ = false;
        if (!io) {
            // The silent, the drained and the half-closed are told; a broken connection can't be.
            say_goodbye_ = io.timed_out || io.error == asio::error::eof;
            co_return std::nullopt;
        }
        parser_.commit(io.bytes);
    }
}

asio::awaitable<Step> Session::read_until(Step wanted, base::Instant deadline) {
    while (true) {
        const auto step = parser_.advance();
        if (step == wanted || step == Step::done || step == Step::refused) co_return step;
        if (step == Step::head) continue;
        const auto room = parser_.prepare();
        const auto io = co_await transport_->read_some(asio::buffer(room.data(), room.size()), deadline);
        if (io.timed_out) {
            parser_.time_out();
            continue;
        }
        if (io.error) {
            say_goodbye_ = io.error == asio::error::eof;
            co_return Step::need_more;
        }
        parser_.commit(io.bytes);
    }
}

asio::awaitable<bool> Session::serve_one() {
    const auto begun = co_await await_request();
    if (!begun) co_return false;
    auto step = *begun;
    if (step == Step::need_more) step = co_await read_until(Step::head, in(core_->limits.header));
    if (step == Step::need_more || aborted_) co_return false;
    identify();
    bool go_on = false;
    if (step == Step::refused)
        go_on = co_await refuse();
    else
        go_on = co_await serve_admitted(step);
    if (go_on) parser_.next();
    co_return go_on;
}

void Session::identify() {
    const auto& request = parser_.request();
    const auto id = request.headers.find("X-Request-Id");
    const auto trace = request.headers.find("traceparent");
    context_ = {.request_id = id && is_request_id(*id) ? std::string{*id} : core_->ids.request_id(),
                .traceparent = trace && is_traceparent(*trace) ? std::string{*trace} : core_->ids.traceparent(),
                .who = who_};
    method_ = request.method;
}

asio::awaitable<bool> Session::serve_admitted(Step step) {
    // Strangers share one identity. What they can hold up is a body; a request without one is answered at once, so that
    // nobody keeps /health from the others.
    const bool counts = who_.kind != base::Principal::Kind::anonymous || step == Step::head;
    auto place = counts ? core_->in_flight->take(who_.text()) : std::nullopt;
    if (counts && !place) {
        const bool whole = step == Step::done;
        co_return co_await answer(too_many(core_->in_flight->each(), "requests"), whole && parser_.keep_alive());
    }
    const bool streams = parser_.streams_body();
    if (step == Step::head && !streams) {
        const bool told = co_await tell_to_continue();
        if (!told) co_return false;
        step = co_await read_until(Step::done, in(core_->limits.body));
        if (step == Step::need_more || aborted_) co_return false;
        if (step == Step::refused) co_return co_await refuse();
    }
    auto& request = parser_.request();
    if (streams) {
        body_fault_.reset();
        request.body_stream = [this] { return next_piece(); };
        request.body_size = parser_.body_size();
    }
    handled_since_ = std::chrono::steady_clock::now();
    auto response = co_await handle(std::move(request), context_);
    handled_since_ = base::Instant::max();
    // A body that wasn't read would be taken for the next request.
    if (streams && (body_fault_ || parser_.advance() != Step::done)) response.close = true;
    if (response.status == 101) {
        co_await upgrade(std::move(response), std::move(place));
        co_return false;
    }
    if (!may_have_body(response.status)) response.stream = nullptr;
    const bool keep_alive = parser_.keep_alive() && !response.close;
    if (response.stream && method_ != Method::head) {
        if (auto among_streams = core_->streams->take(who_.text()))
            place = std::move(among_streams);
        else
            response = too_many(core_->streams->each(), "streams");
    }
    co_return co_await answer(std::move(response), keep_alive);
}

asio::awaitable<bool> Session::tell_to_continue() {
    if (!parser_.expects_continue()) co_return true;
    const auto told = co_await transport_->write(asio::buffer(continue_line), in(core_->limits.write));
    say_goodbye_ = static_cast<bool>(told);
    co_return say_goodbye_;
}

asio::awaitable<base::Result<std::optional<std::string>>> Session::next_piece() {
    if (body_fault_) co_return base::fail(*body_fault_);
    handled_since_ = base::Instant::max();  // a client that is gone is noticed by the read
    auto piece = co_await read_piece();
    handled_since_ = std::chrono::steady_clock::now();
    if (!piece) body_fault_ = piece.error();
    co_return piece;
}

asio::awaitable<base::Result<std::optional<std::string>>> Session::read_piece() {
    constexpr auto broken = base::Errc::source_unavailable;
    while (true) {
        const auto step = parser_.advance();
        if (auto piece = parser_.take_body(); !piece.empty()) co_return std::move(piece);
        if (step == Step::done) co_return std::nullopt;
        if (step == Step::refused) co_return base::fail(broken, parser_.refusal().detail);
        const bool told = co_await tell_to_continue();
        if (!told) co_return base::fail(broken, "the client is gone");
        const auto room = parser_.prepare();
        const auto io = co_await transport_->read_some(asio::buffer(room.data(), room.size()), in(core_->limits.body));
        if (io.timed_out) co_return base::fail(base::Errc::deadline_exceeded, "the body stopped coming");
        if (io.error == asio::error::operation_aborted) co_return base::fail(base::Errc::cancelled);
        if (io.error) co_return base::fail(broken, "the connection broke off before the body was complete");
        parser_.commit(io.bytes);
    }
}

asio::awaitable<Response> Session::handle(Request request, base::Context context) {
    request.context = std::move(context);
    const auto path = request.path;
    std::string fault;
    try {
        auto response = co_await (*handler_)(std::move(request));
        const bool upgrades = response.status == 101 && method_ == Method::get && response.upgrade;
        if (upgrades || (response.status >= 200 && response.status <= 599)) co_return response;
        fault = "status " + std::to_string(response.status) + " is no final one";
    } catch (const std::exception& e) {
        if (aborted_) throw;
        fault = e.what();
    } catch (...) {
        if (aborted_) throw;
        fault = "an exception of unknown type";
    }
    core_->log.error(
        "handler failed",
        {{"request_id", context_.request_id}, {"method", name_of(method_)}, {"path", path}, {"error", fault}});
    co_return problem(500, "internal", "Internal error", "the agent failed to answer; its log has the request id",
                      context_.request_id);
}

asio::awaitable<void> Session::upgrade(Response response, std::optional<Places::Place> place) {
    const auto& wish = *response.upgrade;
    std::optional<Response> no;
    if (parser_.http_1_0()) {
        no = problem(426, "upgrade_required", "Upgrade required", "a WebSocket begins with a request of HTTP/1.1",
                     context_.request_id);
    } else if (parser_.has_more()) {
        no = problem(400, "bad_request", "Bad request", "a WebSocket's client speaks only after it was answered",
                     context_.request_id);
    } else {
        place = core_->websockets->take(wish.identity.empty() ? who_.text() : wish.identity);
        if (!place) no = too_many(core_->websockets->each(), "WebSockets");
    }
    if (no) {
        static_cast<void>(co_await answer(*std::move(no), false));
        co_return;
    }
    parser_.release();
    auto headers = std::move(response.headers);
    headers.set("X-Request-Id", context_.request_id);
    headers.set("traceparent", context_.traceparent);
    const WebSocketPace pace{.ping_interval = core_->limits.websocket_ping, .silence = core_->limits.websocket_silence};
    const auto websocket =
        co_await accept_websocket(transport_, wish, std::move(headers), pace, in(core_->limits.write));
    say_goodbye_ = false;
    if (!websocket || aborted_) co_return;
    websocket_ = websocket.get();
    if (draining_) websocket_->stop();
    co_await serve(wish, *websocket);
}

asio::awaitable<void> Session::serve(const Upgrade& upgrade, WebSocket& websocket) {
    std::string fault;
    try {
        co_await upgrade.serve(websocket);
    } catch (const std::exception& e) {
        fault = e.what();
    } catch (...) {
        fault = "an exception of unknown type";
    }
    websocket_ = nullptr;
    if (aborted_) co_return;
    if (!fault.empty()) {
        core_->log.error(
            "a WebSocket failed",
            {{"peer", peer_}, {"request_id", context_.request_id}, {"by", context_.who.text()}, {"error", fault}});
        co_await websocket.close(1011, "the agent failed; its log has the request id");
    } else {
        co_await websocket.close(1000, {});  // unless it was
    }
}

asio::awaitable<bool> Session::refuse() {
    const auto& why = parser_.refusal();
    tell_refused(why.status, why.detail);
    auto response = problem(why.status, why.code, why.title, why.detail, context_.request_id);
    co_return co_await answer(std::move(response), false);
}

Response Session::too_many(std::size_t limit, std::string_view what) const {
    tell_refused(429, fmt::format("this identity has too many {}", what));
    auto response =
        problem(429, "rate_limited", "Too many requests",
                fmt::format("at most {} {} of one identity are served at a time", limit, what), context_.request_id);
    response.headers.set("Retry-After", "1");
    return response;
}

void Session::tell_refused(unsigned status, std::string_view reason) const {
    core_->log.info("request refused", {{"peer", peer_},
                                        {"method", name_of(method_)},
                                        {"status", status},
                                        {"reason", reason},
                                        {"request_id", context_.request_id},
                                        {"traceparent", context_.traceparent},
                                        {"by", context_.who.text()}});
    if (core_->refused) core_->refused(method_, status);
}

asio::awaitable<bool> Session::answer(Response response, bool keep_alive) {
    keep_alive = keep_alive && !draining_ && !(response.stream && parser_.http_1_0());
    const auto text = to_wire(response, {.head_only = method_ == Method::head,
                                         .keep_alive = keep_alive,
                                         .http_1_0 = parser_.http_1_0(),
                                         .request_id = context_.request_id,
                                         .traceparent = context_.traceparent,
                                         .date = std::chrono::system_clock::now()});
    const auto io = co_await transport_->write(asio::buffer(text), in(core_->limits.write));
    say_goodbye_ = static_cast<bool>(io);
    if (io && response.stream && method_ != Method::head) say_goodbye_ = co_await stream(response.stream);
    const bool go_on = say_goodbye_ && keep_alive && !draining_;
    co_return go_on;
}

asio::awaitable<bool> Session::stream(const BodySource& source) {
    const auto framing = parser_.http_1_0() ? BodyStream::Framing::until_close : BodyStream::Framing::chunked;
    body_stream_.emplace(co_await asio::this_coro::executor, *transport_, framing, core_->limits.stream_write);
    if (draining_ || aborted_) body_stream_->stop();
    handled_since_ = std::chrono::steady_clock::now();
    const auto end = co_await body_stream_->send(source);
    handled_since_ = base::Instant::max();
    base::Fields fields{{"peer", peer_}, {"request_id", context_.request_id}, {"by", context_.who.text()}};
    if (end == BodyStream::End::failed) fields.emplace_back("error", body_stream_->fault());
    body_stream_.reset();
    if (end == BodyStream::End::too_slow)
        core_->log.info("a reader too slow is cut off", std::move(fields));
    else if (end == BodyStream::End::failed)
        core_->log.error("a streamed body failed", std::move(fields));
    co_return end == BodyStream::End::complete;
}

}  // namespace ghost::net
