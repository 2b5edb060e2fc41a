#include "agent/access/socket_end.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <fmt/format.h>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr auto awaiting = asio::as_tuple(asio::use_awaitable);

}  // namespace

Ending SocketEnd::failed(const boost::system::error_code& error) const {
    if (error == asio::error::connection_reset || error == asio::error::broken_pipe)
        return {Ending::connection_failed, fmt::format("{} reset the connection", manner_.peer)};
    return {Ending::connection_failed, fmt::format("the connection to {} failed: {}", manner_.peer, error.message())};
}

asio::awaitable<FarEnd::Got> SocketEnd::ended() {
    if (manner_.patience > base::Duration::zero()) {
        const auto limit = clock_.now() + manner_.patience;
        while (!closed_ && clock_.now() < limit) co_await changed_.wait_until(clock_, limit);
    }
    while (half_close_ && !client_done_ && !closed_) co_await changed_.wait();
    co_return Got{.ending = {Ending::finished, fmt::format("{} closed the connection", manner_.peer)}};
}

asio::awaitable<void> SocketEnd::ready() {
    boost::system::error_code error;
    if (peer_done_ || closed_ || socket_.available(error) > 0 || error) co_return;
    static_cast<void>(co_await socket_.async_wait(net::StreamSocket::wait_read, awaiting));
}

asio::awaitable<FarEnd::Got> SocketEnd::read(asio::mutable_buffer room) {
    if (peer_done_ || closed_) co_return co_await ended();
    const auto [error, bytes] = co_await socket_.async_read_some(room, awaiting);
    if (bytes > 0) co_return Got{.kind = Got::Kind::data, .bytes = bytes};
    if (error && error != asio::error::eof) co_return Got{.ending = failed(error)};
    peer_done_ = true;
    if (!half_close_ || closed_) co_return co_await ended();
    co_return Got{.kind = Got::Kind::event, .event = {{"event", "eof"}}};
}

asio::awaitable<std::optional<Ending>> SocketEnd::write(std::string_view bytes) {
    if (client_done_ || closed_) co_return std::nullopt;
    const auto [error, written] = co_await asio::async_write(socket_, asio::buffer(bytes), awaiting);
    if (!error) co_return std::nullopt;
    // What the peer still had to say comes first, and then its end.
    if (peer_done_ && !half_close_) co_return std::nullopt;
    co_return failed(error);
}

std::optional<Ending> SocketEnd::take(const boost::json::object& event) {
    const auto* const name = event.if_contains("event");
    if (!half_close_ || name == nullptr || *name != "eof" || client_done_) return std::nullopt;
    client_done_ = true;
    boost::system::error_code ignored;
    socket_.shutdown(net::StreamSocket::shutdown_send, ignored);
    changed_.notify();
    return std::nullopt;
}

void SocketEnd::close() noexcept {
    closed_ = true;
    boost::system::error_code ignored;
    socket_.close(ignored);
    changed_.notify();
}

}  // namespace ghost::agent
