// FakeCore on loopback: HTTPS for agents, with certificates of its own making, and a plain page for people.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "net/listening_socket.hpp"
#include "net/router.hpp"
#include "net/server.hpp"
#include "net/session.hpp"
#include "tests/fakes/certificates.hpp"
#include "tests/fakes/fake_core.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::fakes {

// Runs on the loop of `executor`, from its thread; stop() must have ended before it goes.
class CoreServer {
public:
    struct Options {
        std::string dir;  // ca.crt and ca.key are made there, unless they are; the rest is made anew
        net::TcpEndpoint listen{"127.0.0.1", 0};
        net::TcpEndpoint page{"127.0.0.1", 0};
        FakeCore::Settings core = {};
    };
    // What new connections are shown: its own certificate, one of a CA that nobody trusts, or one for another host.
    enum class Shown : std::uint8_t { own, other_ca, other_name };

    // Throws std::runtime_error when certificates or files can't be made.
    CoreServer(boost::asio::any_io_executor executor, base::Clock& clock, base::Random& random, base::Log& log,
               Options options);
    ~CoreServer();
    CoreServer(const CoreServer&) = delete;
    CoreServer& operator=(const CoreServer&) = delete;

    // Listens, on loopback only.
    [[nodiscard]] base::Result<void> start();
    // Closes all connections and waits until they are gone.
    [[nodiscard]] boost::asio::awaitable<void> stop();

    [[nodiscard]] FakeCore& core() noexcept { return core_; }
    [[nodiscard]] CertificateAuthority& authority() noexcept { return *authority_; }
    [[nodiscard]] std::string url() const { return "https://" + address_; }
    [[nodiscard]] std::string page_url() const { return "http://" + page_address_; }
    [[nodiscard]] std::string ca_file() const { return options_.dir + "/ca.crt"; }
    void show(Shown which) noexcept { shown_ = which; }
    // Ends the agents' connections, as a restart of Core would. From within the loop.
    void drop_connections();

private:
    struct Connection {
        std::optional<net::Session> session;
        bool expired = false;  // the certificate that was shown
        boost::asio::cancellation_signal stop;
    };

    [[nodiscard]] std::optional<FakeCore::Issued> issue(const std::string& csr, const std::string& agent_id,
                                                        std::chrono::seconds lifetime);
    void write(const std::string& name, const std::string& text) const;
    void write_identity(const std::string& name, const Identity& identity) const;
    [[nodiscard]] net::TlsContext context_for(const std::shared_ptr<Connection>& connection) const;
    [[nodiscard]] boost::asio::awaitable<void> accept_all();
    void begin(net::StreamSocket socket);
    [[nodiscard]] boost::asio::awaitable<net::Response> answer(net::Request request,
                                                               std::weak_ptr<Connection> connection);

    void add_pages();
    [[nodiscard]] boost::asio::awaitable<net::Response> show_page(net::Request request);
    [[nodiscard]] boost::json::object faults() const;  // as POST /faults takes them
    [[nodiscard]] net::Response queue(const net::Request& request);
    [[nodiscard]] net::Response set_faults(const net::Request& request);
    [[nodiscard]] net::Response add_token(const net::Request& request);
    [[nodiscard]] std::string_view shown_name() const noexcept;

    boost::asio::any_io_executor executor_;
    base::Clock& clock_;
    base::Log& log_;
    Options options_;
    std::unique_ptr<CertificateAuthority> authority_;
    FakeCore core_;
    Shown shown_ = Shown::own;
    net::Router pages_;
    std::unique_ptr<net::Server> page_server_;
    std::shared_ptr<net::ServerCore> shared_;
    std::optional<net::Acceptor> acceptor_;
    std::list<std::shared_ptr<Connection>> connections_;
    std::string address_;
    std::string page_address_;
    bool accepting_ = false;
};

}  // namespace ghost::fakes
