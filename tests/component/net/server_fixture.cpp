#include "tests/component/net/server_fixture.hpp"

#include "base/ids.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <sys/stat.h>

#include <filesystem>
#include <stdexcept>

namespace ghost::test {

namespace asio = boost::asio;
using namespace std::chrono_literals;

net::ServerLimits small_limits() {
    return {.header_bytes = 16 * 1024,
            .body_bytes = 64 * 1024,
            .connections = 1024,
            .in_flight_per_identity = 64,
            .handshake = 20s,
            .idle = 20s,
            .header = 20s,
            .body = 20s,
            .write = 20s,
            .stream_write = 20s,
            .hang_up_check = 1s};
}

Certificates::Certificates() {
    folder.write("ca.pem", ca.certificate());
    const auto write = [this](const std::string& name, const fakes::Identity& identity) {
        static_cast<void>(files(name, identity));
    };
    write("server", ca.issue({.common_name = "node", .alternative_names = "DNS:localhost,IP:127.0.0.1"}));
    write("alice", ca.issue({.common_name = "alice"}));
    write("nameless", ca.issue({.common_name = {}, .organization = "Ghost"}));
    write("stranger", other_ca.issue({.common_name = "alice"}));
    write("expired", ca.issue({.common_name = "alice", .valid_from_s = -7200, .valid_until_s = -3600}));
}

net::TlsFiles Certificates::files(const std::string& name, const fakes::Identity& identity) const {
    folder.write(name + ".pem", identity.certificate);
    const auto key = folder.write(name + ".key", identity.key);
    ::chmod(key.c_str(), 0600);
    return {folder.path(name + ".pem"), key, folder.path("ca.pem")};
}

net::TlsContext Certificates::server() const {
    return net::make_server_tls({folder.path("server.pem"), folder.path("server.key"), folder.path("ca.pem")}).value();
}

net::TlsContext Certificates::client(const std::string& name) const {
    const bool none = name.empty();
    return net::make_client_tls(net::TlsFiles{none ? "" : folder.path(name + ".pem"),
                                              none ? "" : folder.path(name + ".key"), folder.path("ca.pem")})
        .value();
}

Certificates& certificates() {
    static Certificates all;
    return all;
}

ServerFixture::ServerFixture(net::ServerLimits limits)
    : server_(net::make_http_server(context_.get_executor(), limits, log_,
                                    {[n = 0]() mutable { return "made-" + std::to_string(++n); },
                                     [this] { return base::make_traceparent(random_); }})),
      thread_([this] { context_.run(); }) {
    on_loop([this] {
        server_->on_refused([this](net::Method method, unsigned status) {
            refused.push_back(std::string{net::name_of(method)} + " " + std::to_string(status));
        });
    });
}

ServerFixture::~ServerFixture() {
    release = true;
    shut_down(0ms);
    work_.reset();
    thread_.join();
}

base::Result<std::shared_ptr<net::Listener>> ServerFixture::listen(net::Endpoint endpoint, net::TlsContext tls) {
    return on_loop([&] {
        return server_->listen(endpoint, tls, [this](net::Request request) { return answer(std::move(request)); });
    });
}

std::uint16_t ServerFixture::listen_tcp(net::TlsContext tls) {
    const auto address = listen(net::TcpEndpoint{"127.0.0.1", 0}, std::move(tls)).value()->address();
    return net::parse_tcp_endpoint(address).value().port;
}

void ServerFixture::shut_down(std::chrono::milliseconds grace) {
    asio::co_spawn(context_, server_->shut_down(grace), asio::use_future).get();
}

std::size_t ServerFixture::connections() {
    return on_loop([this] { return server_->connections(); });
}

std::vector<base::Record> ServerFixture::logged() {
    log_.flush();
    return recorded_.records();
}

asio::awaitable<net::Response> ServerFixture::answer(net::Request request) {
    ++handled;
    if (handler) co_return co_await handler(std::move(request));
    if (request.path == "/throw") throw std::runtime_error{"the secret"};
    if (request.path == "/echo") co_return net::Response{.body = std::move(request.body)};
    if (request.path == "/large") co_return net::Response{.body = std::string(8 * 1024 * 1024, 'x')};
    if (request.path == "/close") co_return net::Response{.body = "bye", .close = true};
    if (request.path == "/who")
        co_return net::Response{.body = request.context.who.text() + (request.context.who.admin ? " admin" : "")};
    if (request.path == "/ids")
        co_return net::Response{.body = request.context.request_id + " " + request.context.traceparent};
    if (request.path == "/slow" || request.path == "/slow/stream") {
        ++slow_waiting;
        asio::steady_timer timer{co_await asio::this_coro::executor};
        while (!release) {
            timer.expires_after(5ms);
            co_await timer.async_wait(asio::use_awaitable);
        }
        --slow_waiting;
    }
    if (request.path.ends_with("/stream"))
        co_return net::Response{.content_type = "text/event-stream", .stream = streamed()};
    co_return net::Response{.body = request.path};
}

std::size_t open_descriptors() {
    const std::filesystem::directory_iterator all{"/proc/self/fd"};
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

}  // namespace ghost::test
