#include "net/server.hpp"

#include "net/listening_socket.hpp"
#include "net/peer.hpp"
#include "net/session.hpp"
#include "net/transport.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <list>
#include <utility>
#include <vector>

namespace ghost::net {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::milliseconds accept_pause{100};  // after an accept that failed for want of descriptors

std::string peer_name(StreamSocket& socket) {
    asio::ip::tcp::endpoint peer;
    auto size = static_cast<socklen_t>(peer.capacity());
    if (::getpeername(socket.native_handle(), peer.data(), &size) != 0) return "unknown";
    const int family = peer.data()->sa_family;
    if (family != AF_INET && family != AF_INET6) return "unix";
    return to_string(TcpEndpoint{peer.address().to_string(), peer.port()});
}

// What asio leaves at the system's defaults: children must not inherit connections, small answers must not wait for
// more to come.
void prepare(StreamSocket& socket) {
    const int on = 1;
    ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
    ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // fails on Unix sockets: no matter
    keep_alive(socket);
}

// A listening socket, the coroutine that accepts on it, and the sessions it started. Kept alive by that coroutine and
// by those sessions.
class HttpListener final : public Listener, public std::enable_shared_from_this<HttpListener> {
public:
    HttpListener(std::shared_ptr<ServerCore> core, ListeningSocket socket, TlsContext tls, Handler handler)
        : core_(std::move(core)),
          acceptor_(std::move(socket.acceptor)),
          address_(std::move(socket.address)),
          file_(std::move(socket.file)),
          is_unix_(file_ != nullptr),
          admins_(socket.admins),
          tls_(std::move(tls)),
          handler_(std::make_shared<const Handler>(std::move(handler))),
          changed_(acceptor_.get_executor(), base::Instant::max()),
          cut_(acceptor_.get_executor()),
          look_(acceptor_.get_executor()) {}

    std::string address() const override { return address_; }
    std::size_t connections() const override { return sessions_.size(); }
    void use_tls(TlsContext tls) override { tls_ = std::move(tls); }
    void close(std::chrono::milliseconds grace) override {
        if (closing_) return;
        drain();
        cut_.expires_after(grace);
        cut_.async_wait([weak = weak_from_this()](const error_code& error) {
            if (const auto self = weak.lock(); self && !error) self->abort();
        });
    }

    void start() {
        accepting_ = true;
        asio::co_spawn(acceptor_.get_executor(), accept_all(),
                       [self = shared_from_this()](const std::exception_ptr& error) {
                           self->accepting_ = false;
                           self->changed_.cancel();
                           if (self->ended()) self->cut_.cancel();
                           if (error) self->report("accepting connections", error);
                       });
        look_for_abandoned();
    }

    void drain() {
        stop_accepting();
        for (auto& entry : sessions_) entry.session.drain();
    }

    void abort() {
        stop_accepting();
        abort_if([](const Session&) { return true; });
    }

    [[nodiscard]] bool ended() const noexcept { return !accepting_ && sessions_.empty(); }

    // True once it has ended, false at `deadline`.
    asio::awaitable<bool> wait_ended(base::Instant deadline) {
        while (!ended() && std::chrono::steady_clock::now() < deadline) {
            changed_.expires_at(deadline);
            co_await changed_.async_wait(quiet);
        }
        co_return ended();
    }

private:
    struct Entry {
        Entry(const HttpListener& of, std::unique_ptr<Transport> transport, base::Principal who, std::string peer)
            : session(of.core_, std::move(transport), of.handler_, std::move(who), std::move(peer)) {}
        Session session;
        asio::cancellation_signal stop;
    };

    template <class Predicate>
    void abort_if(const Predicate& predicate) {
        // A session that ends at once takes itself off the list: hold the next before it is told.
        for (auto it = sessions_.begin(); it != sessions_.end();) {
            auto& entry = *it++;
            if (!predicate(entry.session)) continue;
            entry.session.abort();
            entry.stop.emit(asio::cancellation_type::terminal);
        }
    }

    void look_for_abandoned() {
        look_.expires_after(core_->limits.hang_up_check);
        look_.async_wait([weak = weak_from_this()](const error_code& error) {
            const auto self = weak.lock();
            if (error || !self || self->closing_) return;
            const auto since = std::chrono::steady_clock::now() - self->core_->limits.hang_up_check;
            self->abort_if([since](const Session& session) { return session.abandoned(since); });
            self->look_for_abandoned();
        });
    }

    void stop_accepting() {
        closing_ = true;
        look_.cancel();
        error_code ignored;
        acceptor_.close(ignored);
        file_.reset();
        changed_.cancel();
    }

    asio::awaitable<void> accept_all() {
        const auto self = shared_from_this();
        while (!closing_) {
            if (sessions_.size() >= core_->limits.connections) {
                changed_.expires_at(base::Instant::max());
                co_await changed_.async_wait(quiet);
                continue;
            }
            auto [error, socket] = co_await acceptor_.async_accept(quiet);
            if (closing_) co_return;
            if (!error) {
                begin(std::move(socket));
                continue;
            }
            if (error == asio::error::connection_aborted) continue;
            core_->log.warn("cannot accept a connection", {{"address", address_}, {"reason", error.message()}});
            changed_.expires_after(accept_pause);
            co_await changed_.async_wait(quiet);
        }
    }

    void begin(StreamSocket socket) {
        prepare(socket);
        auto who = is_unix_ ? socket_principal(socket.native_handle(), admins_) : base::Principal{};
        auto peer = peer_name(socket);
        auto transport = make_server_transport(std::move(socket), tls_);
        const auto it =
            sessions_.emplace(sessions_.end(), *this, std::move(transport), std::move(who), std::move(peer));
        asio::co_spawn(acceptor_.get_executor(), it->session.run(),
                       asio::bind_cancellation_slot(it->stop.slot(),
                                                    [self = shared_from_this(), it](const std::exception_ptr& error) {
                                                        const bool aborted = it->session.aborted();
                                                        self->sessions_.erase(it);
                                                        self->changed_.cancel();
                                                        if (self->ended()) self->cut_.cancel();
                                                        if (error && !aborted) self->report("a session", error);
                                                    }));
    }

    void report(std::string_view what, const std::exception_ptr& error) {
        try {
            std::rethrow_exception(error);
        } catch (const std::exception& e) {
            core_->log.error("ended by an exception", {{"task", what}, {"address", address_}, {"error", e.what()}});
        }
    }

    std::shared_ptr<ServerCore> core_;
    Acceptor acceptor_;
    std::string address_;
    std::unique_ptr<SocketFile> file_;
    bool is_unix_;
    std::optional<gid_t> admins_;
    TlsContext tls_;
    std::shared_ptr<const Handler> handler_;
    std::list<Entry> sessions_;
    asio::steady_timer changed_;  // cancelled when a session or the accepting ends
    asio::steady_timer cut_;      // until what is left of a closed listener is cut
    asio::steady_timer look_;     // until the next look for sessions whose peer hung up
    bool accepting_ = false;
    bool closing_ = false;
};

class HttpServer final : public Server {
public:
    HttpServer(asio::any_io_executor executor, ServerLimits limits, base::Log& log, RequestIds ids)
        : executor_(std::move(executor)), core_(std::make_shared<ServerCore>(limits, log, std::move(ids))) {}

    ~HttpServer() override {
        for (const auto& listener : listeners_) listener->abort();
    }

    base::Result<std::shared_ptr<Listener>> listen(Endpoint endpoint, TlsContext tls, Handler handler) override {
        if (closing_) return base::fail(base::Errc::draining, "the server is shutting down");
        auto socket = open_listening_socket(executor_, endpoint);
        if (!socket) return base::fail(socket.error());
        if (!socket->warning.empty()) core_->log.warn(socket->warning);
        auto listener = std::make_shared<HttpListener>(core_, *std::move(socket), std::move(tls), std::move(handler));
        listener->start();
        std::erase_if(listeners_, [](const auto& old) { return old->ended(); });
        listeners_.push_back(listener);
        return listener;
    }

    asio::awaitable<void> shut_down(std::chrono::milliseconds grace) override {
        closing_ = true;
        const auto deadline = std::chrono::steady_clock::now() + grace;
        for (const auto& listener : listeners_) listener->drain();
        for (const auto& listener : listeners_) {
            const bool ended = co_await listener->wait_ended(deadline);
            if (!ended) break;
        }
        for (const auto& listener : listeners_) listener->abort();
        for (const auto& listener : listeners_) co_await listener->wait_ended(base::Instant::max());
    }

    std::size_t connections() const override {
        std::size_t sum = 0;
        for (const auto& listener : listeners_) sum += listener->connections();
        return sum;
    }

    void on_refused(Refused refused) override { core_->refused = std::move(refused); }
    void stream_bodies(StreamsBody which) override { core_->streams_body = std::move(which); }

private:
    asio::any_io_executor executor_;
    std::shared_ptr<ServerCore> core_;
    std::vector<std::shared_ptr<HttpListener>> listeners_;
    bool closing_ = false;
};

}  // namespace

std::unique_ptr<Server> make_http_server(asio::any_io_executor executor, ServerLimits limits, base::Log& log,
                                         RequestIds ids) {
    return std::make_unique<HttpServer>(std::move(executor), limits, log, std::move(ids));
}

}  // namespace ghost::net
