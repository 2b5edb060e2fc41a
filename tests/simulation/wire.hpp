// The sockets of one agent: each request is a connection of its own, which its client may cut at any moment.
#pragma once

#include "base/clock.hpp"
#include "net/server.hpp"

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>

#include <cstddef>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <string>

namespace ghost::simulation {

// What a client hears on its connection: an answer and the chunks of its stream, or nothing, and then its end. Nothing
// comes after ended().
struct Ear {
    std::function<void(const net::Response&)> answered;
    std::function<void(const std::string&)> chunk;
    std::function<void()> ended;
};

class Wire final : public net::Server {
public:
    class Call {
        friend class Wire;
        Ear ear_;
        boost::asio::cancellation_signal hang_up_;
        bool cut_ = false;
    };
    using Ptr = std::shared_ptr<Call>;

    Wire(boost::asio::io_context& loop, base::Clock& clock) : loop_(loop), clock_(clock) {}

    [[nodiscard]] Ptr send(const net::Handler& handler, net::Request request, Ear ear);
    // The client goes away; it hears that at once, and the agent soon.
    void hang_up(Ptr call);
    // The agent is dead: nobody hears of it any more.
    void cut_all();

    base::Result<std::shared_ptr<net::Listener>> listen(net::Endpoint endpoint, net::TlsContext tls,
                                                        net::Handler handler) override;
    // As the real one: requests at hand get `grace`.
    boost::asio::awaitable<void> shut_down(std::chrono::milliseconds grace) override;
    [[nodiscard]] std::size_t connections() const override { return calls_.size(); }
    void on_refused(Refused) override {}
    void stream_bodies(StreamsBody) override {}

    // Whether the agent died in the middle of what it does just now.
    std::function<bool()> dead;
    // An exception that escaped a handler.
    std::function<void(std::string what)> escaped;

private:
    boost::asio::awaitable<void> serve(Ptr call, net::Handler handler, net::Request request);
    [[nodiscard]] bool heard(const Ptr& call) const { return !call->cut_ && !(dead && dead()); }

    boost::asio::io_context& loop_;
    base::Clock& clock_;
    std::list<Ptr> calls_;
    std::list<Ptr> unheard_;  // ended when the agent was dead and nobody knew yet
};

}  // namespace ghost::simulation
