// The ways into a VM from a client's socket to the guest's: the real server and its TLS before the agent.
#include "base/ids.hpp"
#include "component/agent/world.hpp"
#include "fakes/certificates.hpp"
#include "fakes/scratch_folder.hpp"
#include "net/client.hpp"
#include "net/websocket.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace asio = boost::asio;
namespace json = boost::json;

namespace {

using Opened = std::expected<std::unique_ptr<net::WebSocket>, net::WebSocketRefusal>;
using Socket = asio::local::stream_protocol::socket;

struct Net : World {
    Net() {
        boot();
        add_image();
        id = create_vm();
        hypervisor->set_console(id, {virt::ConsoleDevice::Kind::socket, console_path});
        console.non_blocking(true);
        real = net::make_http_server(loop.get_executor(), {}, log,
                                     {.request_id = [n = 0]() mutable { return "made-" + std::to_string(++n); },
                                      .traceparent = [this] { return base::make_traceparent(random); }});
        REQUIRE(real->listen(net::UnixEndpoint{.path = api_path, .mode = 0600, .group = {}}, nullptr, app->api()));
        const auto node = ca.issue({.common_name = "node", .alternative_names = "DNS:localhost,IP:127.0.0.1"});
        const auto key = folder.write("node.key", node.key);
        ::chmod(key.c_str(), 0600);
        const auto root = folder.write("ca.pem", ca.certificate());
        const auto tls = net::make_server_tls({folder.write("node.pem", node.certificate), key, root});
        REQUIRE(tls);
        const auto listener = real->listen(net::TcpEndpoint{"127.0.0.1", 0}, *tls, app->api());
        REQUIRE(listener);
        const auto port = (*listener)->address().substr((*listener)->address().rfind(':') + 1);
        const auto stranger = net::make_client_tls(net::TlsFiles{"", "", root});
        REQUIRE(stranger);
        without_certificate = net::HttpsPeer{"127.0.0.1", port, *stranger};
    }
    ~Net() {
        bool over = false;
        asio::co_spawn(loop, real->shut_down(0ms), [&over](const std::exception_ptr&) { over = true; });
        until([&] { return over; });
    }
    Net(const Net&) = delete;
    Net& operator=(const Net&) = delete;

    template <class Condition>
    void until(Condition condition) {
        const auto limit = std::chrono::steady_clock::now() + 60s;
        loop.restart();
        while (!condition()) {
            REQUIRE(std::chrono::steady_clock::now() < limit);
            loop.run_one_for(50ms);
            loop.restart();
        }
    }
    template <class T>
    T await(asio::awaitable<T> work) {
        std::optional<T> result;
        asio::co_spawn(loop, std::move(work), [&](const std::exception_ptr& fault, T value) {
            if (fault) std::rethrow_exception(fault);
            result.emplace(std::move(value));
        });
        until([&] { return result.has_value(); });
        return *std::move(result);
    }
    Opened open(const net::Peer& peer, std::string target) {
        return await(net::open_websocket(peer, {.target = std::move(target), .protocol = "ghost.stream.v1"}));
    }
    net::WebSocket::Read read(net::WebSocket& client) {
        return await([](net::WebSocket& from, std::string& into) -> asio::awaitable<net::WebSocket::Read> {
            into.resize(1000);
            auto got = co_await from.read(asio::buffer(into));
            into.resize(got.bytes);
            co_return got;
        }(client, data));
    }
    void write(net::WebSocket& client, const std::string& text) { CHECK(await(client.write(asio::buffer(text)))); }
    Socket guest() {
        Socket end{loop};
        boost::system::error_code none;
        console.accept(end, none);
        REQUIRE_FALSE(none);
        end.non_blocking(true);
        return end;
    }

    fakes::ScratchFolder folder;
    fakes::CertificateAuthority ca{"test CA"};
    std::string api_path = folder.path("agent.sock");
    std::string console_path = folder.path("console.sock");
    asio::local::stream_protocol::acceptor console{loop, asio::local::stream_protocol::endpoint{console_path}};
    std::string id;
    std::unique_ptr<net::Server> real;
    net::Peer on_host{net::UnixPeer{api_path}};
    net::Peer without_certificate;
    std::string data;
};

}  // namespace

TEST_CASE("a client on the host types into a console") {
    Net net;
    auto client = net.open(net.on_host, "/v1/vms/web/console");
    REQUIRE(client);
    CHECK((*client)->protocol() == "ghost.stream.v1");
    auto guest = net.guest();
    const auto first = net.read(**client);
    CHECK(first.kind == net::WebSocket::Kind::text);
    CHECK(first.text.starts_with(R"({"event":"writer","writer":true,"by":"socket:uid:)"));
    asio::write(guest, asio::buffer("login: ", 7));
    CHECK(net.read(**client).kind == net::WebSocket::Kind::data);
    CHECK(net.data == "login: ");
    net.write(**client, "root\n");
    std::string typed(100, '\0');
    boost::system::error_code error = asio::error::would_block;
    net.until([&] {
        const auto bytes = guest.read_some(asio::buffer(typed), error);
        typed.resize(error ? typed.size() : bytes);
        return !error;
    });
    CHECK(typed == "root\n");
    // The VM is stopped, and its console with it.
    net.hypervisor->set_power(net.id, virt::Power::off, "shutdown");
    guest.close();
    net.until([&] { return net.app->vms().find(net.id)->observed.power == virt::Power::off; });
    bool closed = false;
    net::WebSocket::Read last;
    asio::co_spawn(
        net.loop,
        [](Net& of, net::WebSocket& from, net::WebSocket::Read& into) -> asio::awaitable<void> {
            of.data.resize(100);
            into = co_await from.read(asio::buffer(of.data));
        }(net, **client, last),
        [&](const std::exception_ptr&) { closed = true; });
    net.until([&] {
        net.clock.run_for(net.loop, 100ms);
        return closed;
    });
    CHECK(last.kind == net::WebSocket::Kind::closed);
    CHECK(last.code == 4001);
    CHECK(last.text == "the VM stopped");
}

TEST_CASE("without a certificate a ticket is needed, and enough") {
    Net net;
    const auto refused = net.open(net.without_certificate, "/v1/vms/web/console");
    REQUIRE_FALSE(refused);
    REQUIRE(refused.error().answer);
    CHECK(refused.error().answer->status == 401);
    const auto issued = net.post("/v1/vms/web/tickets", json::object{{"for", "console"}});
    REQUIRE(issued.status == 201);
    const auto target = "/v1/vms/web/console?ticket=" + issued.text("/ticket");
    auto client = net.open(net.without_certificate, target);
    REQUIRE(client);
    auto guest = net.guest();
    CHECK(net.read(**client).text == R"({"event":"writer","writer":true,"by":"socket:uid:0"})");
    const auto again = net.open(net.without_certificate, target);
    REQUIRE_FALSE(again);
    REQUIRE(again.error().answer);
    CHECK(again.error().answer->status == 401);
}

TEST_CASE("a plain GET of a stream is told what it is, and other refusals come as problems") {
    Net net;
    const auto client = net::make_client(net.on_host);
    const auto get = [&](const std::string& target) {
        net::ClientRequest request;
        request.target = target;
        auto answer = net.await(client->send(std::move(request)));
        REQUIRE(answer);
        return *std::move(answer);
    };
    const auto plain = get("/v1/vms/web/console");
    CHECK(plain.status == 426);
    CHECK(plain.headers.find("Upgrade") == "websocket");
    CHECK(plain.headers.find("Content-Type") == "application/problem+json");
    const auto refused = net.open(net.on_host, "/v1/vms/nobody/console");
    REQUIRE_FALSE(refused);
    REQUIRE(refused.error().answer);
    CHECK(refused.error().answer->status == 404);
}

TEST_CASE("when the agent stops, a client of a stream is told through its socket") {
    Net net;
    auto client = net.open(net.on_host, "/v1/vms/web/console");
    REQUIRE(client);
    const auto guest = net.guest();
    CHECK(net.read(**client).kind == net::WebSocket::Kind::text);
    bool over = false;
    asio::co_spawn(net.loop, net.real->shut_down(10s), [&over](const std::exception_ptr&) { over = true; });
    const auto last = net.read(**client);
    CHECK(last.kind == net::WebSocket::Kind::closed);
    CHECK(last.code == 1001);
    CHECK(last.text == "the agent is stopping");
    net.until([&] { return over; });
}
