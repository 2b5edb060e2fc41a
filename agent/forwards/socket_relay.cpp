#include "agent/forwards/socket_relay.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <utility>
#include <vector>

namespace ghost::agent {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);

struct Relay {
    net::StreamSocket& a;
    net::StreamSocket& b;
    base::Clock& clock;
    base::Instant last;  // when something came or went
    bool broken = false;
    bool idle = false;

    // The other direction's operation ends, too.
    void break_off() {
        broken = true;
        reset(a);
        reset(b);
    }
};

// One direction, until its end.
asio::awaitable<void> pump(Relay& relay, net::StreamSocket& from, net::StreamSocket& to, std::uint64_t& bytes) {
    std::vector<std::byte> buffer(relay_buffer);
    for (;;) {
        const auto [error, got] = co_await from.async_read_some(asio::buffer(buffer), quiet);
        if (error == asio::error::operation_aborted) co_return;
        relay.last = relay.clock.now();
        if (error == asio::error::eof) {
            error_code ignored;
            to.shutdown(asio::socket_base::shutdown_send, ignored);
            co_return;
        }
        if (error) co_return relay.break_off();
        for (std::size_t sent = 0; sent < got;) {
            const auto [failed, moved] =
                co_await to.async_write_some(asio::buffer(buffer.data() + sent, got - sent), quiet);
            if (failed == asio::error::operation_aborted) co_return;
            if (failed) co_return relay.break_off();
            relay.last = relay.clock.now();
            sent += moved;
            bytes += moved;
        }
    }
}

asio::awaitable<void> watch(Relay& relay, base::Duration idle) {
    while (relay.clock.now() < relay.last + idle)
        if (!co_await relay.clock.sleep_until(relay.last + idle)) co_return;
    relay.idle = true;
}

// A cancellation that comes between two steps is thrown by the next; it ends this one all the same.
asio::awaitable<void> quietly(asio::awaitable<void> task) {
    try {
        co_await std::move(task);
    } catch (const boost::system::system_error&) {
        co_return;
    }
}

}  // namespace

void reset(net::StreamSocket& socket) noexcept {
    error_code ignored;
    socket.set_option(asio::socket_base::linger{true, 0}, ignored);
    socket.close(ignored);
}

asio::awaitable<Relayed> relay(net::StreamSocket& a, net::StreamSocket& b, base::Clock& clock, base::Duration idle) {
    using namespace asio::experimental::awaitable_operators;
    Relay state{a, b, clock, clock.now()};
    Relayed relayed;
    co_await ((quietly(pump(state, a, b, relayed.there)) && quietly(pump(state, b, a, relayed.back))) ||
              quietly(watch(state, idle)));
    error_code ignored;
    a.close(ignored);
    b.close(ignored);
    if (state.broken) relayed.end = RelayEnd::broken;
    if (state.idle) relayed.end = RelayEnd::idle;
    co_return relayed;
}

}  // namespace ghost::agent
