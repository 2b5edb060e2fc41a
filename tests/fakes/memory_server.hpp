// A net::Server without sockets: what listens is remembered, requests are handed in.
#pragma once

#include "net/server.hpp"

#include <boost/asio/awaitable.hpp>

#include <map>
#include <memory>
#include <string>

namespace ghost::fakes {

class MemoryServer final : public net::Server {
public:
    // An endpoint that is listened on already is a fault, as with sockets; `refuse` makes others fail likewise.
    base::Result<std::shared_ptr<net::Listener>> listen(net::Endpoint endpoint, net::TlsContext tls,
                                                        net::Handler handler) override;
    boost::asio::awaitable<void> shut_down(std::chrono::milliseconds grace) override;
    std::size_t connections() const override { return in_flight_; }
    void on_refused(Refused refused) override { refused_by_connection = std::move(refused); }
    void stream_bodies(StreamsBody which) override { streams_body_ = std::move(which); }

    // What the connection would do around the handler: a request id and a traceparent are made when there are none, an
    // exception becomes the problem `internal`, HEAD has no body, and a body that is to be streamed is handed on in
    // pieces, unless the request has a body_stream already. Nobody listening at `endpoint`: std::logic_error, the
    // test's own bug.
    [[nodiscard]] boost::asio::awaitable<net::Response> serve(net::Endpoint endpoint, net::Request request);

    void refuse(const net::Endpoint& endpoint, std::string detail);
    void accept(const net::Endpoint& endpoint) { refused_.erase(net::to_string(endpoint)); }
    [[nodiscard]] bool listens_on(const net::Endpoint& endpoint) const;
    [[nodiscard]] net::TlsContext tls_of(const net::Endpoint& endpoint) const;
    // As if the connection had refused a request.
    Refused refused_by_connection;
    [[nodiscard]] bool is_shut_down() const noexcept { return shut_down_; }

private:
    class MemoryListener;
    [[nodiscard]] std::shared_ptr<MemoryListener> find(const net::Endpoint& endpoint) const;

    std::map<std::string, std::shared_ptr<MemoryListener>> listeners_;  // by the endpoint's text
    std::map<std::string, std::string> refused_;
    StreamsBody streams_body_;
    std::size_t in_flight_ = 0;
    std::size_t made_ids_ = 0;
    bool shut_down_ = false;
};

}  // namespace ghost::fakes
