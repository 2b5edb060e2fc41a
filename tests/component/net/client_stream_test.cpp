// Answers whose bodies the client hands on as they come.
#include "tests/component/net/feed.hpp"
#include "tests/component/net/scripted_server.hpp"
#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/three_ways.hpp"

#include <boost/asio/cancellation_signal.hpp>
#include <catch2/catch.hpp>

#include <future>
#include <mutex>
#include <thread>
#include <utility>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;

namespace {

// What a request was handed; at most `pieces` of it.
class Reader {
public:
    explicit Reader(int pieces = 1'000'000) : left_(pieces) {}
    net::ClientRequest request(std::string target) {
        net::ClientRequest request;
        request.target = std::move(target);
        request.on_body = [this](std::string_view piece) { return take(piece); };
        return request;
    }
    std::string text() const {
        const std::lock_guard lock{mutex_};
        return text_;
    }

private:
    bool take(std::string_view piece) {
        const std::lock_guard lock{mutex_};
        text_.append(piece);
        return --left_ > 0;
    }

    mutable std::mutex mutex_;
    std::string text_;
    int left_;
};

std::vector<net::Peer> every_peer(ServerFixture& server, const fakes::ScratchFolder& folder) {
    const auto path = folder.path("socket");
    REQUIRE(server.listen(net::UnixEndpoint{.path = path, .group = {}}));
    return {net::UnixPeer{path}, net::HttpPeer{"127.0.0.1", std::to_string(server.listen_tcp())},
            net::HttpsPeer{"127.0.0.1", std::to_string(server.listen_tcp(certificates().server())),
                           certificates().client("alice")}};
}

net::Peer plain(ServerFixture& server) { return net::HttpPeer{"127.0.0.1", std::to_string(server.listen_tcp())}; }

using Result = base::Result<net::ClientResponse>;

std::future<Result> begin(ServerFixture& server, net::Client& client, net::ClientRequest request) {
    return std::async(std::launch::async,
                      [&server, &client, request = std::move(request)] { return server.await(client.send(request)); });
}

void push(ServerFixture& server, Feed& feed, const std::string& text) {
    server.on_loop([&] { feed.push(chunk_of(text)); });
}

Result read_all(const std::string& script, Reader& reader, std::size_t max_body = 1024) {
    ServerFixture loop;
    ScriptedServer server{{script}};
    const auto client = net::make_client(server.peer());
    auto request = reader.request("/");
    request.max_body = max_body;
    return loop.await(client->send(std::move(request)));
}

}  // namespace

TEST_CASE("the client hands on a streamed body as it comes, and keeps the connection") {
    const fakes::ScratchFolder folder;
    Feed feed;
    ServerFixture server{quick_limits()};
    server.streamed = [&feed] { return feed.source(); };
    const auto peer = every_peer(server, folder)[static_cast<std::size_t>(GENERATE(0, 1, 2))];
    const auto client = net::make_client(peer);
    Reader reader;
    auto answer = begin(server, *client, reader.request("/stream"));
    push(server, feed, "one\n");
    CHECK(eventually([&] { return reader.text() == "one\n"; }));
    push(server, feed, "two\n");
    CHECK(eventually([&] { return reader.text() == "one\ntwo\n"; }));
    const std::string large(300'000, 'x');
    push(server, feed, large);
    server.on_loop([&] { feed.end(); });
    const auto response = answer.get();
    REQUIRE(response);
    CHECK(response->status == 200);
    CHECK(response->headers.find("Content-Type") == "text/event-stream");
    CHECK(response->body.empty());
    CHECK(reader.text() == "one\ntwo\n" + large);

    Reader whole;
    CHECK(server.await(client->send(whole.request("/x")))->body.empty());
    CHECK(whole.text() == "/x");
    CHECK(server.connections() == 1);
}

TEST_CASE("who has read enough ends the exchange and the connection") {
    Feed feed;
    ServerFixture server{quick_limits()};
    server.streamed = [&feed] { return feed.source(); };
    const auto client = net::make_client(plain(server));
    push(server, feed, "one");
    push(server, feed, "two");
    Reader reader{1};
    const auto response = server.await(client->send(reader.request("/stream")));
    REQUIRE(response);
    CHECK(response->status == 200);
    CHECK(reader.text() == "one");
    CHECK(eventually([&] { return server.connections() == 0; }));
    Reader again;
    CHECK(server.await(client->send(again.request("/x")))->status == 200);
    CHECK(again.text() == "/x");
}

TEST_CASE("only a success is handed on, a problem is collected") {
    ServerFixture server;
    const auto client = net::make_client(plain(server));
    Reader reader;
    const auto response = server.await(client->send(reader.request("/throw")));
    REQUIRE(response);
    CHECK(response->status == 500);
    CHECK(response->body.find("\"code\":\"internal\"") != std::string::npos);
    CHECK(reader.text().empty());
    CHECK(server.await(client->send(reader.request("/x")))->status == 200);
    CHECK(server.connections() == 1);
}

TEST_CASE("a body handed on may end with the connection, and be of any size") {
    const std::string body(100'000, 'x');
    for (const std::string head : {"", "Content-Length: 100000\r\n"}) {
        Reader reader;
        const auto response = read_all("HTTP/1.1 200 OK\r\n" + head + "\r\n" + body, reader);
        REQUIRE(response);
        CHECK(response->body.empty());
        CHECK(reader.text() == body);

        const auto refused = read_all("HTTP/1.1 404 Not Found\r\n" + head + "\r\n" + body, reader);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == base::Errc::body_too_large);
    }
}

TEST_CASE("a stream that is cut off is a fault, after all that came") {
    for (const std::string rest : {"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n", "Content-Length: 9\r\n\r\none",
                                   "Transfer-Encoding: chunked\r\n\r\n9\r\none"}) {
        CAPTURE(rest);
        Reader reader;
        const auto response = read_all("HTTP/1.1 200 OK\r\n" + rest, reader);
        REQUIRE_FALSE(response);
        CHECK(response.error().code == base::Errc::source_unavailable);
        CHECK(reader.text() == "one");
    }
    Reader reader;
    const auto malformed =
        read_all("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\nno size\r\n", reader);
    REQUIRE_FALSE(malformed);
    CHECK_THAT(malformed.error().detail, Catch::Contains("no well-formed HTTP response"));
}

TEST_CASE("a stream has no time limit but that of its silence") {
    Feed feed;
    Feed silent;
    ServerFixture server{quick_limits()};
    server.streamed = [&feed] { return feed.source(); };
    const auto client = net::make_client(plain(server));
    Reader reader;
    auto patient = reader.request("/stream");
    patient.timeout = 1500ms;
    auto answer = begin(server, *client, patient);
    REQUIRE(eventually([&] { return feed.waiting == 1; }));
    std::this_thread::sleep_for(2s);
    push(server, feed, "late");
    CHECK(eventually([&] { return reader.text() == "late"; }));
    server.on_loop([&] { feed.end(); });
    CHECK(answer.get());

    server.on_loop([&] { server.streamed = [&silent] { return silent.source(); }; });
    push(server, silent, "one");
    Reader other;
    auto hasty = other.request("/stream");
    hasty.stream_idle = 200ms;
    const auto late = server.await(client->send(hasty));
    REQUIRE_FALSE(late);
    CHECK(late.error().code == base::Errc::deadline_exceeded);
    CHECK_THAT(late.error().detail, Catch::Contains("fell silent"));
    CHECK(other.text() == "one");
    CHECK(eventually([&] { return silent.alive == 0; }));
}

TEST_CASE("a stream can be cancelled, and the server is told") {
    Feed feed;
    ServerFixture server{quick_limits()};
    server.streamed = [&feed] { return feed.source(); };
    const auto client = net::make_client(plain(server));
    Reader reader;
    boost::asio::cancellation_signal stop;
    auto answer = server.start(client->send(reader.request("/stream")), stop.slot());
    push(server, feed, "one");
    REQUIRE(eventually([&] { return reader.text() == "one"; }));
    server.on_loop([&] {
        stop.emit(boost::asio::cancellation_type::terminal);
        return true;
    });
    const auto result = answer.get();
    REQUIRE_FALSE(result);
    CHECK(result.error().code == base::Errc::cancelled);
    CHECK(eventually([&] { return feed.cancelled == 1 && server.connections() == 0; }));
}

TEST_CASE("a stream that always has more can be cancelled as well") {
    ServerFixture loop;
    const std::string much(8U << 20U, 'x');
    ScriptedServer server{{"HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(much.size()) + "\r\n\r\n" + much}};
    const auto client = net::make_client(server.peer());
    boost::asio::cancellation_signal stop;
    std::size_t taken = 0;
    net::ClientRequest request;
    request.target = "/";
    // While the exchange is at work and waits for nothing.
    request.on_body = [&](std::string_view piece) {
        if (std::exchange(taken, taken + piece.size()) == 0) stop.emit(boost::asio::cancellation_type::terminal);
        return true;
    };
    const auto result = loop.start(client->send(std::move(request)), stop.slot()).get();
    REQUIRE_FALSE(result);
    CHECK(result.error().code == base::Errc::cancelled);
    CHECK(taken < much.size());
}
