#include "net/websocket_end.hpp"

#include "net/text.hpp"
#include "net/tls.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/bind_handler.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

namespace ghost::net {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace websocket = boost::beast::websocket;
using boost::system::error_code;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
// A message goes in frames of this size, between which pongs find room; with its head one is a single record of TLS.
constexpr std::size_t frame_bytes = 8 * 1024 - 16;
constexpr std::size_t longest_reason = 123;
constexpr int silent_looks_limit = 2;  // before a peer is taken for gone
constexpr std::size_t longest_refusal = 64 * 1024;

base::Instant now() { return std::chrono::steady_clock::now(); }

std::string_view view(beast::string_view text) noexcept { return {text.data(), text.size()}; }

// A transport as Beast wants a stream to be.
class Layer {
public:
    using executor_type = asio::any_io_executor;
    template <class Token>
    using Moved = typename asio::async_result<std::decay_t<Token>, void(error_code, std::size_t)>::return_type;

    Layer(executor_type executor, std::shared_ptr<Transport> transport)
        : executor_(std::move(executor)), transport_(std::move(transport)) {}

    [[nodiscard]] executor_type get_executor() const noexcept { return executor_; }
    [[nodiscard]] Transport& transport() const noexcept { return *transport_; }

    template <class Buffers, class Token>
    Moved<Token> async_read_some(const Buffers& buffers, Token&& token) {
        asio::mutable_buffer room;
        for (auto it = asio::buffer_sequence_begin(buffers); it != asio::buffer_sequence_end(buffers); ++it)
            if (room.size() == 0) room = asio::mutable_buffer{*it};
        return asio::async_initiate<Token, void(error_code, std::size_t)>(
            [this, room](auto handler) { begin(read(room), std::move(handler)); }, token);
    }

    template <class Buffers, class Token>
    Moved<Token> async_write_some(const Buffers& buffers, Token&& token) {
        Pieces pieces;
        for (auto it = asio::buffer_sequence_begin(buffers); it != asio::buffer_sequence_end(buffers); ++it) {
            const asio::const_buffer piece{*it};
            if (piece.size() > 0 && pieces.count < pieces.all.size()) pieces.all.at(pieces.count++) = piece;
        }
        return asio::async_initiate<Token, void(error_code, std::size_t)>(
            [this, pieces](auto handler) { begin(write(pieces), std::move(handler)); }, token);
    }

    base::Instant deadline = Transport::never;  // of the handshake; there it reads and writes in turn
    base::Instant heard = now();                // when the last byte came
    bool writing = false;
    bool deaf = false;  // reads no more

private:
    struct Pieces {
        std::array<asio::const_buffer, 16> all = {};  // the first of them, if there are more
        std::size_t count = 0;
    };

    template <class Handler>
    void begin(asio::awaitable<Io> work, Handler handler) {
        const asio::cancellation_slot slot = asio::get_associated_cancellation_slot(handler);
        asio::co_spawn(executor_, std::move(work),
                       asio::bind_cancellation_slot(
                           slot, [handler = std::move(handler)](const std::exception_ptr& fault, Io io) mutable {
                               if (fault) io.error = asio::error::operation_aborted;  // before it began
                               std::move(handler)(io.error, io.bytes);
                           }));
    }

    asio::awaitable<Io> read(asio::mutable_buffer room) {
        if (deaf) co_return Io{.error = asio::error::operation_aborted};
        auto io = co_await transport_->read_some(room, deadline);
        if (io.bytes > 0) heard = now();
        if (io.timed_out) io.error = asio::error::timed_out;
        co_return io;
    }

    asio::awaitable<Io> write(Pieces pieces) {
        writing = true;
        auto io = co_await transport_->write(std::span{pieces.all.data(), pieces.count}, deadline);
        writing = false;
        if (io.timed_out) io.error = asio::error::timed_out;
        co_return io;
    }

    executor_type executor_;
    std::shared_ptr<Transport> transport_;
};

// Beast's names. Who owns the end closes the transport when the time has come.
template <class Handler>
void async_teardown(beast::role_type, Layer& layer, Handler&& handler) {
    asio::post(layer.get_executor(), beast::bind_front_handler(std::forward<Handler>(handler), error_code{}));
}
void beast_close_socket(Layer& layer) { layer.transport().abort(); }

// The flag is set for as long as it lives, and who waits on the timer is told when it goes.
class While {
public:
    While(bool& flag, asio::steady_timer& changed) : flag_(flag), changed_(changed) { flag_ = true; }
    ~While() {
        flag_ = false;
        changed_.cancel();
    }
    While(const While&) = delete;
    While& operator=(const While&) = delete;

private:
    bool& flag_;
    asio::steady_timer& changed_;
};

// Hands a coroutine's cancellation on to `then`, for as long as it lives.
class WhenCancelled {
public:
    WhenCancelled(asio::cancellation_state state, std::function<void()> then) : state_(state), slot_(state_.slot()) {
        if (slot_.is_connected()) slot_.assign([then = std::move(then)](asio::cancellation_type) { then(); });
    }
    ~WhenCancelled() {
        if (slot_.is_connected()) slot_.clear();
    }
    WhenCancelled(const WhenCancelled&) = delete;
    WhenCancelled& operator=(const WhenCancelled&) = delete;

private:
    asio::cancellation_state state_;
    asio::cancellation_slot slot_;
};

std::string_view fitting(std::string_view reason) {
    if (reason.size() > longest_reason) {
        auto size = longest_reason;
        while (size > 0 && (static_cast<unsigned char>(reason[size]) & 0xC0U) == 0x80U) --size;
        reason = reason.substr(0, size);
    }
    return is_utf8(reason) ? reason : std::string_view{};
}

// RFC 6455, section 5.5.1. Beast writes one only while nothing has gone wrong, and a read that was cancelled is wrong
// enough for it.
std::string close_frame(beast::role_type role, std::uint16_t code, std::string_view reason) {
    std::string payload;
    if (code != static_cast<std::uint16_t>(CloseCode::none)) {
        payload += static_cast<char>(code >> 8U);
        payload += static_cast<char>(code & 0xFFU);
        payload += fitting(reason);
    }
    const bool masked = role == beast::role_type::client;
    std::string frame{static_cast<char>(0x88)};
    frame += static_cast<char>(payload.size() | (masked ? 0x80U : 0U));
    if (!masked) return frame + payload;
    std::array<unsigned char, 4> key{};
    RAND_bytes(key.data(), static_cast<int>(key.size()));
    for (const auto byte : key) frame += static_cast<char>(byte);
    for (std::size_t i = 0; i < payload.size(); ++i)
        frame += static_cast<char>(static_cast<unsigned char>(payload[i]) ^ key.at(i % key.size()));
    return frame;
}

// What an end consists of, kept alive by all that is under way on it.
class End : public std::enable_shared_from_this<End> {
public:
    using Stream = websocket::stream<Layer, false>;

    End(const asio::any_io_executor& executor, std::shared_ptr<Transport> transport, beast::role_type role,
        WebSocketPace pace)
        : stream(executor, std::move(transport)),
          pace_(pace),
          role_(role),
          look_(executor),
          hurry_(executor),
          changed_(executor) {
        stream.auto_fragment(true);
        stream.write_buffer_bytes(frame_bytes);
        stream.read_message_max(0);
        stream.set_option(websocket::stream_base::timeout{.handshake_timeout = websocket::stream_base::none(),
                                                          .idle_timeout = websocket::stream_base::none(),
                                                          .keep_alive_pings = false});
    }

    [[nodiscard]] Layer& layer() noexcept { return stream.next_layer(); }

    void open(std::string agreed) {
        protocol = std::move(agreed);
        layer().deadline = Transport::never;
        layer().heard = now();
        look_later();
    }

    asio::awaitable<WebSocket::Read> read(asio::mutable_buffer room) {
        assert(room.size() > 0 && !reading_);
        const auto self = shared_from_this();
        std::string text;
        while (true) {
            if (stopped_ && !ended_) co_return WebSocket::Read{.kind = WebSocket::Kind::stopped};
            if (ended_ || closing_) co_return WebSocket::Read{};
            const auto [error, bytes] = co_await read_some(room);
            if (error) co_return end_of(error);
            if (!stream.got_text())
                co_return WebSocket::Read{
                    .kind = WebSocket::Kind::data, .bytes = bytes, .more = !stream.is_message_done()};
            text.append(static_cast<const char*>(room.data()), bytes);
            if (text.size() > WebSocket::longest_text) {
                co_await close(websocket::close_code::too_big, "a text is longer than is taken");
                co_return WebSocket::Read{};
            }
            if (stream.is_message_done())
                co_return WebSocket::Read{.kind = WebSocket::Kind::text, .text = std::move(text)};
        }
    }

    asio::awaitable<bool> write(asio::const_buffer bytes, bool text) {
        const auto self = shared_from_this();
        if (stopped_ || ended_ || closing_) co_return false;
        assert(!writing_);
        stream.text(text);
        error_code failed;
        {
            const While writing{writing_, changed_};
            // Half a message is worse than one too late: a write is given a moment before it is cut.
            const WhenCancelled cancelled{co_await asio::this_coro::cancellation_state,
                                          [weak = weak_from_this()] { later(weak, &End::hurry); }};
            const auto [error, count] =
                co_await stream.async_write(bytes, asio::bind_cancellation_slot(asio::cancellation_slot{}, quiet));
            failed = error;
        }
        wrote_ = now();
        hurry_.cancel();
        co_return !failed;
    }

    asio::awaitable<void> close(std::uint16_t code, std::string reason) {
        const auto self = shared_from_this();
        if (std::exchange(closing_, true)) co_return;
        look_.cancel();
        const auto deadline = now() + pace_.goodbye;
        cancel_read();
        while (busy() && now() < deadline) {
            changed_.expires_at(deadline);
            co_await changed_.async_wait(quiet);
        }
        if (!busy() && !cut_ && !ended_) {
            const auto frame = close_frame(role_, code, reason);
            static_cast<void>(co_await layer().transport().write(asio::buffer(frame), deadline));
        }
        ended_ = true;
        // What Beast said before it gave up shall arrive as well.
        if (!busy() && !cut_) co_await layer().transport().finish(now() + pace_.goodbye);
        layer().transport().abort();
    }

    // Both may be called in the middle of anything.
    void stop() noexcept {
        if (std::exchange(stopped_, true)) return;
        later(weak_from_this(), &End::leave);
    }
    void abort() noexcept {
        ended_ = true;
        look_.cancel();
        hurry_.cancel();
        layer().transport().abort();
    }

    Stream stream;
    std::string protocol;

private:
    static void later(const std::weak_ptr<End>& weak, void (End::*what)()) {
        const auto self = weak.lock();
        if (self) asio::post(self->look_.get_executor(), [self, what] { ((*self).*what)(); });
    }

    [[nodiscard]] bool busy() const noexcept { return reading_ || writing_ || pinging_ || finishing_; }

    // Both have said goodbye: the connection ends, whether somebody waits for it or not.
    void finish() {
        finishing_ = true;
        asio::co_spawn(look_.get_executor(), layer().transport().finish(now() + pace_.goodbye),
                       [self = shared_from_this()](const std::exception_ptr&) {
                           self->finishing_ = false;
                           self->changed_.cancel();
                       });
    }

    asio::awaitable<std::tuple<error_code, std::size_t>> read_some(asio::mutable_buffer room) {
        const While reading{reading_, changed_};
        const WhenCancelled cancelled{co_await asio::this_coro::cancellation_state,
                                      [weak = weak_from_this()] { later(weak, &End::cancel_read); }};
        listened_ = now();
        co_return co_await stream.async_read_some(room, asio::bind_cancellation_slot(cancel_read_.slot(), quiet));
    }

    // Beast has answered a goodbye, and a breach of the rules, with its own.
    WebSocket::Read end_of(const error_code& error) {
        if (error == websocket::error::closed) {
            ended_ = true;
            finish();
            const auto& reason = stream.reason();
            return {.kind = WebSocket::Kind::closed,
                    .text = std::string{reason.reason.data(), reason.reason.size()},
                    .code = reason.code == websocket::close_code::none ? static_cast<std::uint16_t>(CloseCode::none)
                                                                       : reason.code};
        }
        if (stopped_ && !ended_) return {.kind = WebSocket::Kind::stopped};
        // One that was only cancelled can still be said goodbye to.
        if (!layer().deaf) ended_ = true;
        return {};
    }

    void cancel_read() {
        layer().deaf = true;  // for a Beast that is between two reads
        if (!reading_) return;
        // A pong that is being written with it.
        if (layer().writing && !writing_ && !pinging_) cut_ = true;
        cancel_read_.emit(asio::cancellation_type::terminal);
    }

    // What is being written has a little time left.
    void hurry() {
        if (!writing_) return;
        hurry_.expires_after(pace_.goodbye);
        hurry_.async_wait([weak = weak_from_this()](const error_code& error) {
            const auto self = weak.lock();
            if (!error && self && self->writing_) self->abort();
        });
    }

    void leave() {
        cancel_read();
        hurry();
    }

    void look_later() {
        look_.expires_after(pace_.ping_interval / 2);
        look_.async_wait([weak = weak_from_this()](const error_code& error) {
            const auto self = weak.lock();
            if (!error && self && !self->ended_) self->look();
        });
    }

    void look() {
        const auto at = now();
        if (layer().transport().lost()) return abort();
        const auto quiet_since = std::max({layer().heard, listened_, wrote_});
        const bool silent = reading_ && !writing_ && at - quiet_since >= pace_.silence;
        // Once is not enough: when this process was held up, what has come meanwhile is read after this.
        silent_looks_ = silent ? silent_looks_ + 1 : 0;
        if (silent_looks_ == silent_looks_limit) return abort();
        if (!writing_ && !pinging_ && !stopped_ && at - std::max(layer().heard, pinged_) >= pace_.ping_interval) ping();
        look_later();
    }

    // One that doesn't listen at the moment asks for no answer, but tells that it is there.
    void ping() {
        pinging_ = true;
        pinged_ = now();
        auto done = [self = shared_from_this()](const error_code&) {
            self->pinging_ = false;
            self->changed_.cancel();
        };
        if (reading_)
            stream.async_ping({}, std::move(done));
        else
            stream.async_pong({}, std::move(done));
    }

    WebSocketPace pace_;
    beast::role_type role_;
    asio::steady_timer look_;     // until the next look at how the peer is
    asio::steady_timer hurry_;    // until the write under way is cut
    asio::steady_timer changed_;  // cancelled when a read, a write or a ping has ended
    asio::cancellation_signal cancel_read_;
    base::Instant listened_ = now();  // when the last read began
    base::Instant wrote_ = now();     // when the last write ended
    base::Instant pinged_ = now();
    int silent_looks_ = 0;
    bool reading_ = false;
    bool writing_ = false;
    bool pinging_ = false;
    bool finishing_ = false;
    bool stopped_ = false;
    bool closing_ = false;  // by us
    bool ended_ = false;    // nothing more can come or go
    bool cut_ = false;      // in the middle of a frame of ours
};

class OpenWebSocket final : public WebSocket {
public:
    explicit OpenWebSocket(std::shared_ptr<End> end) : end_(std::move(end)) {}
    ~OpenWebSocket() override { end_->abort(); }
    OpenWebSocket(const OpenWebSocket&) = delete;
    OpenWebSocket& operator=(const OpenWebSocket&) = delete;

    asio::awaitable<Read> read(asio::mutable_buffer room) override { co_return co_await end_->read(room); }
    asio::awaitable<bool> write(asio::const_buffer bytes) override { co_return co_await end_->write(bytes, false); }
    asio::awaitable<bool> write_text(std::string text) override {
        co_return co_await end_->write(asio::buffer(text), true);
    }
    asio::awaitable<void> close(std::uint16_t code, std::string reason) override {
        co_await end_->close(code, std::move(reason));
    }
    void stop() noexcept override { end_->stop(); }
    void abort() noexcept override { end_->abort(); }
    const std::string& protocol() const noexcept override { return end_->protocol; }

private:
    std::shared_ptr<End> end_;
};

// Headers of ours, but for those that are WebSocket's or the connection's.
template <class Message>
void add_headers(Message& message, const Headers& headers) {
    for (const auto& [name, value] : headers) {
        const bool theirs = to_lower(name).starts_with("sec-websocket-") || same_token(name, "Upgrade") ||
                            same_token(name, "Connection") || same_token(name, "Content-Length") ||
                            same_token(name, "Transfer-Encoding") || same_token(name, "Host");
        if (theirs || !is_token(name)) continue;
        auto text = value;
        std::ranges::replace_if(text, [](char c) { return has_control({&c, 1}); }, ' ');
        message.insert(name, text);
    }
}

ClientResponse answer_of(websocket::response_type& message) {
    ClientResponse answer{.status = message.result_int(), .headers = {}, .body = std::move(message.body())};
    for (const auto& field : message) answer.headers.add(view(field.name_string()), std::string{view(field.value())});
    if (answer.body.size() > longest_refusal) answer.body.resize(longest_refusal);
    return answer;
}

base::Error failed(const std::string& peer, const error_code& error) {
    if (error == asio::error::timed_out) return {base::Errc::deadline_exceeded, peer + " didn't answer in time"};
    if (error == asio::error::operation_aborted) return {base::Errc::cancelled, {}};
    const bool ended = error == asio::error::eof || error == asio::ssl::error::stream_truncated ||
                       error == http::error::end_of_stream || error == http::error::partial_message;
    base::Error result{base::Errc::source_unavailable,
                       "no answer from " + peer + ": " + (ended ? "the connection was closed" : error.message())};
    if (const auto alert = certificate_refused(error); !alert.empty()) result.facts["certificate_refused"] = alert;
    return result;
}

}  // namespace

asio::awaitable<std::unique_ptr<WebSocket>> accept_websocket(std::shared_ptr<Transport> transport,
                                                             const Upgrade& upgrade, Headers headers,
                                                             WebSocketPace pace, base::Instant deadline) {
    const auto executor = co_await asio::this_coro::executor;
    const auto end = std::make_shared<End>(executor, std::move(transport), beast::role_type::server, pace);
    // What Beast looks at of the request that was judged already.
    http::request<http::empty_body> request{http::verb::get, "/", 11};
    request.set(http::field::host, "localhost");
    request.set(http::field::connection, "Upgrade");
    request.set(http::field::upgrade, "websocket");
    request.set(http::field::sec_websocket_version, "13");
    request.set(http::field::sec_websocket_key, upgrade.key);
    end->stream.set_option(websocket::stream_base::decorator(
        [headers = std::move(headers), protocol = upgrade.protocol](websocket::response_type& response) {
            response.set(http::field::server, "ghost-agent");
            if (!protocol.empty()) response.set(http::field::sec_websocket_protocol, protocol);
            add_headers(response, headers);
        }));
    end->layer().deadline = deadline;
    const auto [error] = co_await end->stream.async_accept(request, quiet);
    if (error) co_return nullptr;
    end->open(upgrade.protocol);
    co_return std::make_unique<OpenWebSocket>(end);
}

asio::awaitable<std::expected<std::unique_ptr<WebSocket>, WebSocketRefusal>> ask_for_websocket(
    std::shared_ptr<Transport> transport, std::string peer, WebSocketRequest request, base::Instant deadline) {
    const auto refused = [&](base::Errc code, std::string why) {
        return std::unexpected{WebSocketRefusal{{code, peer + " " + std::move(why)}}};
    };
    const auto executor = co_await asio::this_coro::executor;
    const WebSocketPace pace{.ping_interval = request.ping_interval, .silence = request.silence};
    const auto end = std::make_shared<End>(executor, std::move(transport), beast::role_type::client, pace);
    const std::string host{request.headers.find("Host").value_or("localhost")};
    end->stream.set_option(websocket::stream_base::decorator(
        [headers = std::move(request.headers), protocol = request.protocol](websocket::request_type& message) {
            if (!protocol.empty()) message.set(http::field::sec_websocket_protocol, protocol);
            add_headers(message, headers);
        }));
    end->layer().deadline = deadline;
    websocket::response_type response;
    const auto [error] = co_await end->stream.async_handshake(response, host, request.target, quiet);
    if (error == websocket::error::upgrade_declined)
        co_return std::unexpected{
            WebSocketRefusal{{base::Errc::source_unavailable,
                              peer + " didn't agree to a WebSocket: status " + std::to_string(response.result_int())},
                             answer_of(response)}};
    if (error.category() == make_error_code(websocket::error::closed).category())
        co_return refused(base::Errc::source_unavailable, "speaks no WebSocket: " + error.message());
    if (error) co_return std::unexpected{WebSocketRefusal{failed(peer, error)}};
    auto agreed = std::string{view(response[http::field::sec_websocket_protocol])};
    if (!agreed.empty() && agreed != request.protocol)
        co_return refused(base::Errc::source_unavailable, "agreed on a subprotocol that it wasn't offered");
    end->open(std::move(agreed));
    co_return std::make_unique<OpenWebSocket>(end);
}

}  // namespace ghost::net
