#include "agent/forwards/open_forward.hpp"
#include "agent/forwards/socket_relay.hpp"
#include "base/task_group.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace ghost::agent {
namespace {

namespace asio = boost::asio;
namespace ip = boost::asio::ip;
using boost::system::error_code;

constexpr std::chrono::seconds accept_pause{1};  // when there are no descriptors left

class TcpForward final : public OpenForward {
public:
    TcpForward(ForwardsGround& ground, ForwardPlace place, ip::tcp::acceptor acceptor)
        : ground_(ground),
          place_(std::move(place)),
          acceptor_(std::move(acceptor)),
          listener_(ground.executor, ground.log),
          connections_(ground.executor, ground.log) {
        listener_.spawn("forward " + place_.name, accept());
    }

    void hang_up() override { connections_.cancel(); }

    void close() override {
        error_code ignored;
        acceptor_.close(ignored);
        listener_.cancel();
        connections_.cancel();
    }

    asio::awaitable<void> drain() override {
        co_await listener_.drain();
        co_await connections_.drain();
    }

private:
    // Counts a connection for as long as it lives.
    class Counted {
    public:
        explicit Counted(TcpForward& forward) : forward_(&forward) {
            ++forward.count_;
            ++forward.ground_.connections;
        }
        Counted(Counted&& other) noexcept : forward_(std::exchange(other.forward_, nullptr)) {}
        Counted& operator=(Counted&&) = delete;
        ~Counted() {
            if (forward_ == nullptr) return;
            --forward_->count_;
            --forward_->ground_.connections;
            forward_->ground_.room.notify();
        }

    private:
        TcpForward* forward_;
    };

    [[nodiscard]] bool has_room() const noexcept {
        return count_ < max_connections_of_forward && ground_.connections < max_connections;
    }

    asio::awaitable<void> accept() {
        while (acceptor_.is_open()) {
            if (!has_room()) {
                co_await ground_.room.wait();
                continue;
            }
            auto [error, client] = co_await acceptor_.async_accept(asio::as_tuple(asio::use_awaitable));
            // Another forward may have had the last room meanwhile.
            while (!error && acceptor_.is_open() && !has_room()) co_await ground_.room.wait();
            if (error == asio::error::operation_aborted || !acceptor_.is_open()) co_return;
            if (!error)
                connections_.spawn("forwarded connection", serve(std::move(client), Counted{*this}));
            else if (error == asio::error::no_descriptors || error == asio::error::no_buffer_space ||
                     error == asio::error::no_memory || error.value() == ENFILE)
                if (!co_await ground_.clock.sleep_for(accept_pause)) co_return;
        }
    }

    asio::awaitable<void> serve(net::StreamSocket client, Counted counted) {
        (void)counted;
        ::fcntl(client.native_handle(), F_SETFD, FD_CLOEXEC);
        net::keep_alive(client);
        const auto* vm = ground_.index.find(place_.vm);
        if (vm == nullptr) co_return reset(client);
        auto guest =
            co_await ground_.dialer.connect(place_of(*vm), place_.guest_port, ground_.clock.now() + dial_limit);
        if (!guest) {
            reset(client);
            if (guest.error().code != base::Errc::cancelled) unreached_.say(ground_, place_, guest.error());
            co_return;
        }
        const int on = 1;
        ::setsockopt(client.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        const auto relayed = co_await relay(client, *guest, ground_.clock, ground_.idle_timeout);
        if (relayed.end == RelayEnd::idle)
            ground_.log.info("a forwarded connection was idle for too long and is closed",
                             {{"vm", place_.vm}, {"forward", place_.name}});
    }

    ForwardsGround& ground_;
    ForwardPlace place_;
    ip::tcp::acceptor acceptor_;
    std::size_t count_ = 0;
    UnreachedLog unreached_;
    base::TaskGroup listener_;
    base::TaskGroup connections_;
};

}  // namespace

std::unique_ptr<OpenForward> forward_tcp(ForwardsGround& ground, ForwardPlace place, ip::tcp::acceptor acceptor) {
    return std::make_unique<TcpForward>(ground, std::move(place), std::move(acceptor));
}

void UnreachedLog::say(const ForwardsGround& ground, const ForwardPlace& place, const base::Error& why) {
    const auto now = ground.clock.now();
    if (now < next_) {
        ++unsaid_;
        return;
    }
    next_ = now + interval;
    ground.log.warn("a forward doesn't reach the guest", {{"vm", place.vm},
                                                          {"forward", place.name},
                                                          {"error", why.detail},
                                                          {"unsaid_before", std::exchange(unsaid_, 0)}});
}

}  // namespace ghost::agent
