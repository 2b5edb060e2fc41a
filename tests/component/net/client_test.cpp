// The client against our own server, and against servers that misbehave.
#include "tests/component/net/scripted_server.hpp"
#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/wire.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <catch2/catch.hpp>
#include <openssl/ssl.h>

#include <future>
#include <string_view>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;

namespace {

net::ClientRequest to(std::string target, net::Method method = net::Method::get, std::string body = {}) {
    net::ClientRequest request;
    request.method = method;
    request.target = std::move(target);
    request.body = std::move(body);
    request.timeout = 30s;
    return request;
}

base::Error error_of(ServerFixture& loop, net::Peer peer, net::ClientRequest request) {
    const auto client = net::make_client(std::move(peer));
    const auto result = loop.await(client->send(std::move(request)));
    REQUIRE_FALSE(result);
    return result.error();
}

net::Peer https(std::uint16_t port, const std::string& certificate, std::string host = "127.0.0.1") {
    return net::HttpsPeer{std::move(host), std::to_string(port), certificates().client(certificate)};
}

}  // namespace

TEST_CASE("the client speaks over a Unix socket, plain TCP and TLS, and keeps its connection") {
    ServerFixture server;
    const auto path = certificates().folder.path("client.sock");
    REQUIRE(server.listen(net::UnixEndpoint{.path = path, .group = {}}));
    const auto plain = server.listen_tcp();
    const auto secure = server.listen_tcp(certificates().server());
    for (const auto& peer :
         {net::Peer{net::UnixPeer{path}}, net::Peer{net::HttpPeer{"127.0.0.1", std::to_string(plain)}},
          https(secure, "alice"), https(secure, "", "localhost")}) {
        REQUIRE(eventually([&] { return server.connections() == 0; }));
        const auto client = net::make_client(peer);
        for (int i = 0; i < 3; ++i) {
            const auto response = server.await(client->send(to("/echo", net::Method::post, "{\"a\":1}")));
            REQUIRE(response);
            CHECK(response->status == 200);
            CHECK(response->body == "{\"a\":1}");
            CHECK(response->headers.find("X-Request-Id"));
        }
        const auto head = server.await(client->send(to("/x", net::Method::head)));
        REQUIRE(head);
        CHECK(head->headers.find("Content-Length") == "2");
        CHECK(head->body.empty());
        CHECK(server.await(client->send(to("/throw")))->status == 500);
        CHECK(server.connections() == 1);
    }
}

TEST_CASE("requests sent at once go in turn over the one connection") {
    ServerFixture server;
    const auto client = net::make_client(net::HttpPeer{"127.0.0.1", std::to_string(server.listen_tcp())});
    std::vector<std::future<std::string>> answers;
    answers.reserve(20);
    for (int i = 0; i < 20; ++i)
        answers.push_back(std::async(std::launch::async, [&, i] {
            return server.await(client->send(to("/" + std::to_string(i)))).value().body;
        }));
    for (int i = 0; i < 20; ++i) CHECK(answers[static_cast<std::size_t>(i)].get() == "/" + std::to_string(i));
    CHECK(server.connections() == 1);
}

TEST_CASE("who can't be reached is named in a sentence") {
    ServerFixture loop;
    const auto absent = error_of(loop, net::UnixPeer{"/no/such.sock"}, to("/"));
    CHECK(absent.code == base::Errc::source_unavailable);
    CHECK(absent.detail == "cannot connect to /no/such.sock: No such file or directory");
    const auto refused = error_of(loop, net::HttpPeer{"127.0.0.1", "1"}, to("/"));
    CHECK(refused.detail == "cannot connect to http://127.0.0.1:1: Connection refused");
    const auto nameless = error_of(loop, net::HttpPeer{"no.such.host.invalid", "80"}, to("/"));
    CHECK(nameless.code == base::Errc::source_unavailable);
    CHECK(nameless.detail.starts_with("cannot resolve no.such.host.invalid: "));
}

TEST_CASE("a server that can't prove who it is isn't spoken to") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    auto& all = certificates();
    const auto distrusting =
        net::make_client_tls(net::TlsFiles{{}, {}, all.folder.write("other-ca.pem", all.other_ca.certificate())});
    REQUIRE(distrusting);
    const auto unknown = error_of(server, net::HttpsPeer{"127.0.0.1", std::to_string(port), *distrusting}, to("/"));
    CHECK(unknown.code == base::Errc::source_unavailable);
    CHECK(unknown.detail.find("https://127.0.0.1:" + std::to_string(port)) != std::string::npos);
    CHECK_THAT(unknown.detail,
               Catch::Contains("certificate verification failed: self-signed certificate in certificate chain"));

    const auto other = server.listen_tcp(
        net::make_server_tls(all.files("elsewhere", all.ca.issue({.common_name = "127.0.0.1",
                                                                  .alternative_names = "DNS:elsewhere.example"})))
            .value());
    CHECK(error_of(server, https(other, ""), to("/")).detail.find("IP address mismatch") != std::string::npos);
    CHECK(error_of(server, https(other, "", "localhost"), to("/")).detail.find("hostname mismatch") !=
          std::string::npos);
    CHECK(server.handled == 0);
}

TEST_CASE("a server that refuses our certificate says so") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    for (const auto* name : {"stranger", "expired"}) {
        const auto error = error_of(server, https(port, name), to("/"));
        CHECK(error.code == base::Errc::source_unavailable);
        CHECK(error.detail.find("https://127.0.0.1:") != std::string::npos);
        CHECK(error.detail.find("alert") != std::string::npos);
        CHECK(error.facts.at("certificate_refused") ==
              (name == std::string_view{"expired"} ? "certificate_expired" : "unknown_ca"));
        CHECK_FALSE(error.facts.contains("certificate"));
    }
}

TEST_CASE("a refusal of our certificate is told also in the handshake of TLS 1.2, and when much was to be sent") {
    ServerFixture server;
    const auto port = server.listen_tcp(certificates().server());
    const auto tls12 = certificates().client("expired");
    SSL_CTX_set_max_proto_version(tls12->native_handle(), TLS1_2_VERSION);
    const auto in_handshake = error_of(server, net::HttpsPeer{"127.0.0.1", std::to_string(port), tls12}, to("/"));
    CHECK(in_handshake.facts.at("certificate_refused") == "certificate_expired");
    // The server has closed before it has read all.
    const auto large =
        error_of(server, https(port, "stranger"), to("/echo", net::Method::post, std::string(8U << 20U, 'x')));
    CHECK(large.code == base::Errc::source_unavailable);
    CHECK(large.facts.at("certificate_refused") == "unknown_ca");
}

TEST_CASE("what is wrong with the server's certificate is a fact") {
    ServerFixture server;
    auto& all = certificates();
    const auto problem = [&](const std::string& name, long from, long until) {
        const auto identity = all.ca.issue(
            {.common_name = name, .alternative_names = "IP:127.0.0.1", .valid_from_s = from, .valid_until_s = until});
        const auto port = server.listen_tcp(net::make_server_tls(all.files(name, identity)).value());
        const auto error = error_of(server, https(port, ""), to("/"));
        CHECK(error.code == base::Errc::source_unavailable);
        CHECK_FALSE(error.facts.contains("certificate_refused"));
        return error.facts.at("certificate");
    };
    CHECK(problem("over", -7200, -3600) == "certificate has expired");
    CHECK(problem("early", 3600, 7200) == "certificate is not yet valid");
}

TEST_CASE("connecting has a limit of its own, the answer another") {
    ServerFixture server;
    // The kernel takes the connection; nobody ever answers the handshake.
    boost::asio::io_context apart;
    boost::asio::ip::tcp::acceptor silent{apart, {boost::asio::ip::address_v4::loopback(), 0}};
    auto request = to("/x");
    request.timeout = 10min;
    request.connect_timeout = 100ms;
    const auto late = error_of(server, https(silent.local_endpoint().port(), ""), request);
    CHECK(late.code == base::Errc::deadline_exceeded);
    CHECK(late.detail.find("https://127.0.0.1:") != std::string::npos);

    // An answer may take longer than the connection might have.
    const auto client = net::make_client(https(server.listen_tcp(certificates().server()), "alice"));
    request.target = "/slow";
    request.connect_timeout = 5s;
    boost::asio::cancellation_signal unused;
    auto answer = server.start(client->send(request), unused.slot());
    REQUIRE(eventually([&] { return server.slow_waiting == 1; }));
    server.release = true;
    CHECK(answer.get()->status == 200);
    // The whole limit holds, however much there is for connecting.
    request.timeout = 100ms;
    request.connect_timeout = 10min;
    CHECK(error_of(server, https(silent.local_endpoint().port(), ""), request).code == base::Errc::deadline_exceeded);
}

TEST_CASE("TLS to a plain port and a silent server are errors in time") {
    ServerFixture server;
    const auto port = server.listen_tcp();
    CHECK(error_of(server, https(port, ""), to("/")).code == base::Errc::source_unavailable);
    auto request = to("/slow");
    request.timeout = 200ms;
    const auto late = error_of(server, net::HttpPeer{"127.0.0.1", std::to_string(port)}, request);
    CHECK(late.code == base::Errc::deadline_exceeded);
    CHECK(late.detail.find("http://127.0.0.1:") != std::string::npos);
}

TEST_CASE("a connection the server has closed meanwhile is opened again, also for a POST") {
    auto limits = small_limits();
    limits.idle = 100ms;
    ServerFixture server{limits};
    const auto client = net::make_client(net::HttpPeer{"127.0.0.1", std::to_string(server.listen_tcp())});
    for (int i = 0; i < 2; ++i) {
        CHECK(server.await(client->send(to("/echo", net::Method::post, "x")))->body == "x");
        CHECK(eventually([&] { return server.connections() == 0; }));
    }
    CHECK(server.handled == 2);
}

TEST_CASE("a request whose answer is cut off is an error, and is not sent twice") {
    ServerFixture loop;
    for (const std::string script : {"", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 200"}) {
        CAPTURE(script);
        ScriptedServer server{{script, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}};
        const auto error = error_of(loop, server.peer(), to("/", net::Method::post, "x"));
        CHECK(error.code == base::Errc::source_unavailable);
        CHECK(error.detail.find("closed before the response was complete") != std::string::npos);
        CHECK(server.served == 1);
    }
}

TEST_CASE("interim responses are passed over, bodies without a length end with the connection") {
    ServerFixture loop;
    ScriptedServer server{{"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nall of it"}};
    const auto client = net::make_client(server.peer());
    const auto response = loop.await(client->send(to("/")));
    REQUIRE(response);
    CHECK(response->status == 200);
    CHECK(response->body == "all of it");
}

TEST_CASE("an answer that a server of TLS gives in the middle of a body, before it closes, is the answer") {
    ServerFixture loop;
    ScriptedServer server{{"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"},
                          certificates().server()};
    const auto client = net::make_client(server.peer(certificates().client("alice")));
    auto request = to("/", net::Method::put);
    const std::string much(64U << 20U, 'x');
    if (GENERATE(true, false)) {
        request.body = much;
    } else {
        request.body_source = [&]() -> boost::asio::awaitable<base::Result<std::optional<std::string>>> {
            co_return much.substr(0, 100'000);
        };
    }
    const auto answer = loop.await(client->send(std::move(request)));
    INFO((answer ? "" : answer.error().detail));
    REQUIRE(answer);
    CHECK(answer->status == 413);
    CHECK(answer->body == "no");
}

TEST_CASE("what is no HTTP, or more than was asked for, is an error") {
    ServerFixture loop;
    ScriptedServer server{{"SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
                           "HTTP/1.1 200 OK\r\n\r\n" + std::string(100, 'x')}};
    CHECK(error_of(loop, server.peer(), to("/")).code == base::Errc::source_unavailable);
    auto small = to("/");
    small.max_body = 10;
    CHECK(error_of(loop, server.peer(), small).code == base::Errc::body_too_large);
    CHECK(error_of(loop, server.peer(), small).code == base::Errc::body_too_large);
}

TEST_CASE("what would break out of the request is not sent") {
    ServerFixture loop;
    ScriptedServer server{{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}};
    CHECK(error_of(loop, server.peer(), to("/ HTTP/1.1\r\nX: y")).code == base::Errc::validation_failed);
    auto request = to("/");
    request.headers.set("X", "a\r\nY: b");
    CHECK(error_of(loop, server.peer(), request).code == base::Errc::validation_failed);
    CHECK(server.served == 0);
}

TEST_CASE("a cancelled exchange ends with cancelled and the client can be used again") {
    ServerFixture server;
    const auto client = net::make_client(net::HttpPeer{"127.0.0.1", std::to_string(server.listen_tcp())});
    boost::asio::cancellation_signal stop;
    auto answer = server.start(client->send(to("/slow")), stop.slot());
    REQUIRE(eventually([&] { return server.slow_waiting == 1; }));
    server.on_loop([&] {
        stop.emit(boost::asio::cancellation_type::terminal);
        return true;
    });
    const auto result = answer.get();
    REQUIRE_FALSE(result);
    CHECK(result.error().code == base::Errc::cancelled);
    CHECK(server.await(client->send(to("/after")))->body == "/after");
}
