// Raw bytes into a whole session over a connection in memory, cut into reads of every size. /ws is a WebSocket that
// says again what it hears, /up takes its body in pieces.
#include "base/log.hpp"
#include "net/session.hpp"
#include "net/websocket.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <span>
#include <string>
#include <string_view>

using namespace ghost;

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

// Gives out `input` in pieces and keeps what is written.
class MemoryTransport final : public net::Transport {
public:
    MemoryTransport(std::string_view input, std::size_t piece, std::string& output)
        : input_(input), piece_(piece), output_(output) {}

    boost::asio::awaitable<base::Result<void>> handshake(base::Instant) override { co_return base::Result<void>{}; }
    boost::asio::awaitable<net::Io> read_some(boost::asio::mutable_buffer room, base::Instant) override {
        must(room.size() > 0);
        if (input_.empty()) co_return net::Io{.error = boost::asio::error::eof};
        const auto count = std::min({room.size(), piece_, input_.size()});
        std::memcpy(room.data(), input_.data(), count);
        input_.remove_prefix(count);
        co_return net::Io{.bytes = count};
    }
    boost::asio::awaitable<net::Io> write(std::span<const boost::asio::const_buffer> pieces, base::Instant) override {
        for (const auto& piece : pieces) output_.append(static_cast<const char*>(piece.data()), piece.size());
        co_return net::Io{.bytes = boost::asio::buffer_size(pieces)};
    }
    boost::asio::awaitable<void> finish(base::Instant) override { co_return; }
    void interrupt() noexcept override {}
    void hurry(base::Instant) noexcept override {}
    void abort() noexcept override {}
    bool hung_up() const noexcept override { return false; }
    bool stale() const noexcept override { return false; }
    std::optional<std::string> certificate_name() const override { return std::nullopt; }

private:
    std::string_view input_;
    std::size_t piece_;
    std::string& output_;
};

constexpr std::size_t body_limit = 4096;

boost::asio::awaitable<void> echo(net::WebSocket& end) {
    using Kind = net::WebSocket::Kind;
    std::array<char, 64> room{};
    while (true) {
        const auto got = co_await end.read(boost::asio::buffer(room));
        must(got.bytes <= room.size() && got.text.size() <= net::WebSocket::longest_text);
        if (got.kind == Kind::data) static_cast<void>(co_await end.write(boost::asio::buffer(room.data(), got.bytes)));
        if (got.kind == Kind::text) static_cast<void>(co_await end.write_text(got.text));
        if (got.kind != Kind::data && got.kind != Kind::text) co_return;
    }
}

boost::asio::awaitable<net::Response> take(net::Request request) {
    must(request.body.empty());
    std::size_t bytes = 0;
    while (true) {
        const auto piece = co_await request.body_stream();
        if (!piece || !*piece) break;
        must(!(*piece)->empty());
        bytes += (*piece)->size();
        must(!request.body_size || bytes <= *request.body_size);
    }
    co_return net::Response{.body = std::to_string(bytes)};
}

boost::asio::awaitable<net::Response> answer(net::Request request) {
    if (request.path == "/up") co_return co_await take(std::move(request));
    must(!request.body_stream);
    if (request.path == "/ws" && net::asks_for_websocket(request)) co_return net::websocket_reply(request, {"a"}, echo);
    must(request.body.size() <= body_limit);
    must(!request.context.request_id.empty() && request.context.request_id.size() <= 64);
    must(request.path.starts_with('/') || request.path == "*");
    co_return net::Response{.body = std::move(request.body)};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1) return 0;
    static base::Log log;
    static const auto handler = std::make_shared<const net::Handler>(&answer);
    const std::string_view input{reinterpret_cast<const char*>(data) + 1, size - 1};
    const std::size_t piece = data[0] == 0 ? input.size() + 1 : data[0];
    const auto core = std::make_shared<net::ServerCore>(
        net::ServerLimits{.header_bytes = 2048, .body_bytes = body_limit}, log,
        net::RequestIds{[] { return std::string{"made"}; }, [] { return std::string{"made"}; }});
    core->streams_body = [](net::Method, std::string_view path) { return path == "/up"; };
    std::string output;
    boost::asio::io_context loop{1};
    net::Session session{core, std::make_unique<MemoryTransport>(input, piece, output), handler, {}, "fuzz"};
    bool ended = false;
    boost::asio::co_spawn(loop, session.run(), [&](const std::exception_ptr& error) {
        must(!error);
        ended = true;
    });
    loop.run();
    must(ended && core->in_flight->all_free() && core->websockets->all_free());
    must(output.empty() || output.starts_with("HTTP/1.1 "));
    return 0;
}
