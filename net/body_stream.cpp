#include "net/body_stream.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace ghost::net {
namespace {

namespace asio = boost::asio;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::milliseconds last_write{2'000};  // for a piece or the end once the stream is stopped
constexpr std::string_view line_end = "\r\n";
constexpr std::string_view last_chunk = "0\r\n\r\n";

base::Instant in(std::chrono::milliseconds span) { return std::chrono::steady_clock::now() + span; }

}  // namespace

BodyStream::BodyStream(asio::any_io_executor executor, Transport& transport, Framing framing,
                       std::chrono::milliseconds each_write)
    : executor_(std::move(executor)),
      transport_(transport),
      framing_(framing),
      each_write_(each_write),
      cancel_source_(std::make_shared<asio::cancellation_signal>()) {}

asio::awaitable<BodyStream::End> BodyStream::send(const BodySource& source) {
    const auto end_of = [](const Io& io) { return io.timed_out ? End::too_slow : End::gone; };
    while (!stopped_) {
        // Apart from this coroutine, which goes on when only the source is cancelled.
        const auto [fault, piece] = co_await asio::co_spawn(
            executor_, [&source] { return source(); }, asio::bind_cancellation_slot(cancel_source_->slot(), quiet));
        if (fault && !stopped_) {
            note(fault);
            co_return End::failed;
        }
        if (!piece) break;
        if (piece->empty()) continue;  // as a chunk it would be the last
        const auto io = co_await write(*piece);
        if (!io) co_return end_of(io);
    }
    const auto io = co_await write_end();
    co_return io ? End::complete : end_of(io);
}

void BodyStream::stop() noexcept {
    stopped_ = true;
    transport_.hurry(in(last_write));
    // Not from here: a source that ends at once would end the session while its caller still uses it.
    asio::post(executor_, [cancel = cancel_source_] { cancel->emit(asio::cancellation_type::terminal); });
}

asio::awaitable<Io> BodyStream::write(const std::string& piece) {
    const auto deadline = in(stopped_ ? std::min(each_write_, last_write) : each_write_);
    if (framing_ == Framing::until_close) co_return co_await transport_.write(asio::buffer(piece), deadline);
    const auto size = fmt::format("{:x}\r\n", piece.size());
    const std::array<asio::const_buffer, 3> chunk{asio::buffer(size), asio::buffer(piece), asio::buffer(line_end)};
    co_return co_await transport_.write(std::span{chunk}, deadline);
}

asio::awaitable<Io> BodyStream::write_end() {
    if (framing_ == Framing::until_close) co_return Io{};
    co_return co_await transport_.write(asio::buffer(last_chunk), in(std::min(each_write_, last_write)));
}

void BodyStream::note(const std::exception_ptr& fault) {
    try {
        std::rethrow_exception(fault);
    } catch (const std::exception& e) {
        fault_ = e.what();
    } catch (...) {
        fault_ = "an exception of unknown type";
    }
}

}  // namespace ghost::net
