#include "tests/fakes/memory_server.hpp"

#include "net/problem.hpp"

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

namespace ghost::fakes {
namespace {

constexpr std::size_t piece_bytes = 16 * 1024;

net::BodyReader in_pieces(std::string body) {
    return [rest = std::move(body)]() mutable -> boost::asio::awaitable<base::Result<std::optional<std::string>>> {
        if (rest.empty()) co_return std::nullopt;
        auto piece = rest.substr(0, piece_bytes);
        rest.erase(0, piece.size());
        co_return std::move(piece);
    };
}

}  // namespace

class MemoryServer::MemoryListener final : public net::Listener {
public:
    MemoryListener(MemoryServer& server, std::string address, net::TlsContext tls, net::Handler handler)
        : handler_(std::move(handler)), address_(std::move(address)), tls_(std::move(tls)), server_(server) {}
    std::string address() const override { return address_; }
    std::size_t connections() const override { return 0; }
    void use_tls(net::TlsContext tls) override { tls_ = std::move(tls); }
    void close(std::chrono::milliseconds) override {
        if (!std::exchange(closed_, true)) server_.listeners_.erase(address_);
    }

    net::Handler handler_;
    std::string address_;
    net::TlsContext tls_;

private:
    MemoryServer& server_;
    bool closed_ = false;
};

base::Result<std::shared_ptr<net::Listener>> MemoryServer::listen(net::Endpoint endpoint, net::TlsContext tls,
                                                                  net::Handler handler) {
    const auto name = net::to_string(endpoint);
    if (shut_down_) return base::fail(base::Errc::draining, "the server is shutting down");
    if (const auto it = refused_.find(name); it != refused_.end()) return base::fail(base::Errc::io_error, it->second);
    if (listeners_.contains(name))
        return base::fail(base::Errc::io_error, "cannot listen on " + name + ": Address already in use");
    auto listener = std::make_shared<MemoryListener>(*this, name, std::move(tls), std::move(handler));
    listeners_.emplace(name, listener);
    return listener;
}

boost::asio::awaitable<void> MemoryServer::shut_down(std::chrono::milliseconds) {
    shut_down_ = true;
    listeners_.clear();
    co_return;
}

boost::asio::awaitable<net::Response> MemoryServer::serve(net::Endpoint endpoint, net::Request request) {
    const auto listener = find(endpoint);
    if (!listener) throw std::logic_error("nobody listens on " + net::to_string(endpoint));
    if (request.context.request_id.empty()) request.context.request_id = "memory-" + std::to_string(++made_ids_);
    if (request.context.traceparent.empty())
        request.context.traceparent = fmt::format("00-{:032x}-{:016x}-00", made_ids_ + 1, made_ids_ + 1);
    const auto id = request.context.request_id;
    const auto trace = request.context.traceparent;
    const bool head = request.method == net::Method::head;
    if (!request.body_stream && streams_body_ && streams_body_(request.method, request.path)) {
        request.body_size = request.body.size();
        request.body_stream = in_pieces(std::exchange(request.body, {}));
    }
    struct InFlight {
        std::size_t& count;
        explicit InFlight(std::size_t& c) : count(c) { ++count; }
        ~InFlight() { --count; }
    };
    const InFlight counted{in_flight_};
    net::Response response;
    bool failed = false;
    try {
        response = co_await listener->handler_(std::move(request));
    } catch (const std::exception&) {
        failed = true;
    }
    if (failed) response = net::problem(500, "internal", "Internal error", "the agent failed to answer", id);
    response.headers.set("X-Request-Id", id);
    response.headers.set("traceparent", trace);
    if (head) response.body.clear();
    co_return response;
}

void MemoryServer::refuse(const net::Endpoint& endpoint, std::string detail) {
    refused_.insert_or_assign(net::to_string(endpoint), std::move(detail));
}

bool MemoryServer::listens_on(const net::Endpoint& endpoint) const { return find(endpoint) != nullptr; }

net::TlsContext MemoryServer::tls_of(const net::Endpoint& endpoint) const {
    const auto listener = find(endpoint);
    return listener ? listener->tls_ : nullptr;
}

std::shared_ptr<MemoryServer::MemoryListener> MemoryServer::find(const net::Endpoint& endpoint) const {
    const auto it = listeners_.find(net::to_string(endpoint));
    return it == listeners_.end() ? nullptr : it->second;
}

}  // namespace ghost::fakes
