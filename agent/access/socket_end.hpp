// A socket as the far end of a stream: a guest's service, or the display's
// server.
#pragma once

#include "agent/access/far_end.hpp"
#include "base/clock.hpp"
#include "base/notifier.hpp"
#include "net/transport.hpp"

namespace ghost::agent {

class SocketEnd final : public FarEnd {
public:
    struct Manner {
        std::string peer;            // as sentences name it: "the guest"
        bool half_close = false;     // each direction ends by itself, where the client knows events
        base::Duration patience{0};  // between the peer's end and the stream's: the VM's end may be told first
    };
    SocketEnd(net::StreamSocket socket, base::Clock& clock, Manner manner)
        : socket_(std::move(socket)), clock_(clock), manner_(std::move(manner)), changed_(socket_.get_executor()) {}

    void begin(bool events) override { half_close_ = manner_.half_close && events; }
    [[nodiscard]] boost::asio::awaitable<void> ready() override;
    [[nodiscard]] boost::asio::awaitable<Got> read(boost::asio::mutable_buffer room) override;
    [[nodiscard]] boost::asio::awaitable<std::optional<Ending>> write(std::string_view bytes) override;
    [[nodiscard]] std::optional<Ending> take(const boost::json::object& event) override;
    void close() noexcept override;

private:
    [[nodiscard]] boost::asio::awaitable<Got> ended();
    [[nodiscard]] Ending failed(const boost::system::error_code& error) const;

    net::StreamSocket socket_;
    base::Clock& clock_;
    Manner manner_;
    bool half_close_ = false;
    bool peer_done_ = false;    // it sends no more
    bool client_done_ = false;  // neither does the client
    bool closed_ = false;
    base::Notifier changed_;
};

}  // namespace ghost::agent
