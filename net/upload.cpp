#include "net/upload.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string_view>
#include <utility>

namespace ghost::net {
namespace {

namespace asio = boost::asio;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t interim_bytes = 16 * 1024;
constexpr std::chrono::seconds last_words{5};  // for an answer, once the server takes nothing more
constexpr std::string_view last_chunk = "0\r\n\r\n";

base::Instant now() { return std::chrono::steady_clock::now(); }

// Takes interim answers (1xx) off the front of `input`. True: what is left is, or may become, one.
bool strip_interim(std::string& input) {
    constexpr std::string_view interim = "HTTP/1.1 1";
    while (!input.empty()) {
        const auto known = std::min(input.size(), interim.size());
        const bool alike = std::string_view{input}.substr(0, known) == interim.substr(0, known);
        if (!alike || input.starts_with("HTTP/1.1 101")) return false;
        const auto end = input.find("\r\n\r\n");
        if (end == std::string::npos) return input.size() < interim_bytes;
        input.erase(0, end + 4);
    }
    return true;
}

}  // namespace

Upload::Upload(const asio::any_io_executor& executor, Transport& transport, const ClientRequest& request,
               std::string& input)
    : executor_(executor), transport_(transport), request_(request), input_(input), changed_(executor) {}

asio::awaitable<bool> Upload::run() {
    begin(send(), stop_sending_, sending_);
    begin(listen(), stop_listening_, listening_);
    while (sending_ || listening_) {
        changed_.expires_at(std::min(piece_until_, words_until_));
        co_await changed_.async_wait(quiet);
        const auto state = co_await asio::this_coro::cancellation_state;
        stop_what_is_in_vain(state.cancelled() != asio::cancellation_type::none);
    }
    if (answered_) fault_.reset();
    if (thrown_ && !answered_) std::rethrow_exception(thrown_);
    co_return whole_;
}

void Upload::stop_what_is_in_vain(bool cancelled) {
    const auto at = now();
    if (cancelled) fail({.error = base::Error{base::Errc::cancelled, {}}});
    if (at >= piece_until_) fail({.io = {.timed_out = true}});
    if (sending_ && (answered_ || fault_)) {
        stopped_ = true;
        stop_sending_.emit(asio::cancellation_type::terminal);
    }
    if (!listening_ || sending_) return;
    // A server that broke off has said why, or is about to.
    const bool broken_off = fault_ && !fault_->error && !fault_->io.timed_out;
    if (broken_off && words_until_ == base::Instant::max()) words_until_ = at + last_words;
    if (broken_off && at < words_until_) return;
    words_until_ = base::Instant::max();
    stop_listening_.emit(asio::cancellation_type::terminal);
}

void Upload::begin(asio::awaitable<void> work, asio::cancellation_signal& stop, bool& under_way) {
    under_way = true;
    asio::co_spawn(executor_, std::move(work),
                   asio::bind_cancellation_slot(stop.slot(), [this, &under_way](const std::exception_ptr& thrown) {
                       under_way = false;
                       piece_until_ = base::Instant::max();
                       if (thrown && &under_way == &sending_ && !stopped_) thrown_ = thrown;
                       changed_.cancel();
                   }));
}

void Upload::fail(Fault fault) {
    if (!fault_ && !whole_) fault_ = std::move(fault);
}

asio::awaitable<void> Upload::send() {
    while (true) {
        auto piece = co_await request_.body_source();
        if (!piece) co_return fail({.error = std::move(piece.error())});
        if (!*piece) break;
        if ((*piece)->empty()) continue;  // as a chunk it would be the last
        const bool taken = co_await write_piece(std::move(**piece));
        if (!taken) co_return;
    }
    whole_ = co_await write_end();
}

asio::awaitable<bool> Upload::write_piece(std::string piece) {
    sent_ += piece.size();
    if (request_.body_size && sent_ > *request_.body_size) {
        fail(wrong_size());
        co_return false;
    }
    const auto size = request_.body_size ? std::string{} : fmt::format("{:x}\r\n", piece.size());
    const std::string_view end = request_.body_size ? "" : "\r\n";
    const std::array<asio::const_buffer, 3> pieces{asio::buffer(size), asio::buffer(piece), asio::buffer(end)};
    co_return co_await write(std::span{pieces});
}

asio::awaitable<bool> Upload::write_end() {
    if (request_.body_size) {
        if (sent_ != *request_.body_size) fail(wrong_size());
        co_return sent_ == *request_.body_size;
    }
    const std::array<asio::const_buffer, 1> end{asio::buffer(last_chunk)};
    co_return co_await write(std::span{end});
}

asio::awaitable<bool> Upload::write(std::span<const asio::const_buffer> pieces) {
    piece_until_ = now() + request_.stream_idle;
    changed_.cancel();
    const auto io = co_await transport_.write(pieces, Transport::never);
    piece_until_ = base::Instant::max();
    if (!io && !stopped_) fail({.io = io});
    co_return static_cast<bool>(io);
}

asio::awaitable<void> Upload::listen() {
    while (!answered_) {
        const auto io = co_await transport_.read_some(asio::buffer(room_), Transport::never);
        input_.append(room_.data(), io.bytes);
        const bool may_be_interim = strip_interim(input_);
        answered_ = !may_be_interim;
        if (!io && io.error != asio::error::operation_aborted) fail({.io = io});
        if (!io) co_return;
    }
}

Upload::Fault Upload::wrong_size() const {
    return {.error = base::Error{
                base::Errc::io_error,
                fmt::format("the request's body isn't the {} bytes that were announced", *request_.body_size)}};
}

}  // namespace ghost::net
