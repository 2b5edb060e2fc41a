// One connection served: requests read one after the other, each answered
// before the next is looked at, until either side has had enough.
#pragma once

#include "base/clock.hpp"
#include "base/context.hpp"
#include "base/log.hpp"
#include "net/body_stream.hpp"
#include "net/http.hpp"
#include "net/places.hpp"
#include "net/request_parser.hpp"
#include "net/server.hpp"
#include "net/transport.hpp"
#include "net/websocket.hpp"

#include <boost/asio/awaitable.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::net {

// What all connections of a server share. Outlives every session.
struct ServerCore {
    ServerLimits limits;
    base::Log& log;
    RequestIds ids;
    std::shared_ptr<Places> in_flight = std::make_shared<Places>(limits.in_flight_per_identity);
    std::shared_ptr<Places> streams = std::make_shared<Places>(limits.streams_per_identity);
    std::shared_ptr<Places> websockets = std::make_shared<Places>(limits.websockets_per_identity);
    Server::Refused refused = {};
    Server::StreamsBody streams_body = {};
};

class Session {
public:
    // `who` is the principal until a certificate tells better; `peer` names the connection in logs.
    Session(std::shared_ptr<ServerCore> core, std::unique_ptr<Transport> transport,
            std::shared_ptr<const Handler> handler, base::Principal who, std::string peer);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Until the connection is closed. The caller keeps the session alive meanwhile.
    [[nodiscard]] boost::asio::awaitable<void> run();

    // Finish the request at hand, answer it with `Connection: close`, take no other. A stream ends soon, a WebSocket is
    // told to stop.
    void drain() noexcept;
    // Close at once. The caller cancels run() as well, for a handler that waits.
    void abort() noexcept;
    [[nodiscard]] bool aborted() const noexcept { return aborted_; }
    // Its request has been with the handler, or its stream under way, since before `since`, and nobody is there to be
    // answered.
    [[nodiscard]] bool abandoned(base::Instant since) const noexcept;

private:
    [[nodiscard]] boost::asio::awaitable<bool> serve_one();  // false: the connection ends
    [[nodiscard]] boost::asio::awaitable<RequestParser::Step> read_until(RequestParser::Step wanted,
                                                                         base::Instant deadline);
    // What the parser makes of a request's first bytes; nullopt when none came.
    [[nodiscard]] boost::asio::awaitable<std::optional<RequestParser::Step>> await_request();
    [[nodiscard]] boost::asio::awaitable<bool> serve_admitted(RequestParser::Step step);
    // False: the connection is gone.
    [[nodiscard]] boost::asio::awaitable<bool> tell_to_continue();
    // Of a body that is streamed: as BodyReader says.
    [[nodiscard]] boost::asio::awaitable<base::Result<std::optional<std::string>>> next_piece();
    [[nodiscard]] boost::asio::awaitable<base::Result<std::optional<std::string>>> read_piece();
    [[nodiscard]] boost::asio::awaitable<Response> handle(Request request, base::Context context);
    [[nodiscard]] boost::asio::awaitable<bool> answer(Response response, bool keep_alive);
    // False: the connection is no more good for a goodbye.
    [[nodiscard]] boost::asio::awaitable<bool> stream(const BodySource& source);
    // The connection's last service; `place` is taken in exchange for one among WebSockets.
    [[nodiscard]] boost::asio::awaitable<void> upgrade(Response response, std::optional<Places::Place> place);
    [[nodiscard]] boost::asio::awaitable<void> serve(const Upgrade& upgrade, WebSocket& websocket);
    [[nodiscard]] boost::asio::awaitable<bool> refuse();
    [[nodiscard]] Response too_many(std::size_t limit, std::string_view what) const;
    // Of a request that isn't answered by a handler.
    void tell_refused(unsigned status, std::string_view reason) const;
    void identify();

    std::shared_ptr<ServerCore> core_;
    std::shared_ptr<Transport> transport_;  // also of what is under way on a WebSocket
    std::shared_ptr<const Handler> handler_;
    base::Principal who_;
    std::string peer_;
    RequestParser parser_;
    // Of the request at hand, since the handler takes the request itself.
    base::Context context_;
    Method method_ = Method::get;
    base::Instant handled_since_ = base::Instant::max();  // max(): nobody waits for a handler or a stream
    std::optional<BodyStream> body_stream_;
    std::optional<base::Error> body_fault_;  // what kept the rest of a streamed body away
    WebSocket* websocket_ = nullptr;         // while it is served
    bool idle_ = false;
    bool draining_ = false;
    bool aborted_ = false;
    bool say_goodbye_ = true;
};

}  // namespace ghost::net
