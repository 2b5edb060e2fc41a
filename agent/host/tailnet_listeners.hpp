// `api.listen_addr: tailscale:PORT`: the API at the addresses that this machine
// has in its tailnet, which come and go.
#pragma once

#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "net/server.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ghost::agent {

// Loop thread only.
class TailnetListeners {
public:
    TailnetListeners(const boost::asio::any_io_executor& executor, net::Server& server, base::Clock& clock,
                     base::Log& log, std::vector<std::uint16_t> ports)
        : server_(server), clock_(clock), log_(log), ports_(std::move(ports)), changed_(executor) {}

    [[nodiscard]] bool wanted() const noexcept { return !ports_.empty(); }
    // From here on there is something to serve; before, nothing listens.
    void serve(net::TlsContext tls, net::Handler handler);
    [[nodiscard]] bool serves() const noexcept { return tls_ != nullptr; }
    void use_tls(net::TlsContext tls);
    // Which addresses are ours now. Listeners at others are closed; requests at hand are finished.
    void follow(std::vector<std::string> addresses);
    // Tries again, every few seconds, what couldn't be listened on: a port that is taken, an address that isn't
    // assigned yet. Until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();
    // Opens no more.
    void stop() noexcept { stopped_ = true; }

    // Why one of them can't be listened on, now; empty when all are, or none is to be.
    [[nodiscard]] std::string fault() const;

    static constexpr std::chrono::seconds retry{2};
    static constexpr std::chrono::seconds close_grace{10};

private:
    struct Place {
        std::shared_ptr<net::Listener> listener;  // null: it couldn't be listened on, for `fault`
        std::string fault;
    };
    void open();

    net::Server& server_;
    base::Clock& clock_;
    base::Log& log_;
    std::vector<std::uint16_t> ports_;
    net::TlsContext tls_;
    net::Handler handler_;
    std::vector<std::string> addresses_;
    std::map<std::string, Place> places_;  // by the endpoint's text
    base::Notifier changed_;
    bool stopped_ = false;
};

}  // namespace ghost::agent
