// Bodies of requests that pass as they come: on the server, and from the client.
#include "net/problem.hpp"
#include "tests/component/net/scripted_server.hpp"
#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/three_ways.hpp"
#include "tests/component/net/wire.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <thread>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

using Piece = base::Result<std::optional<std::string>>;

std::size_t resident_bytes() {
    std::ifstream statm{"/proc/self/statm"};
    std::size_t total = 0;
    std::size_t resident = 0;
    statm >> total >> resident;
    return resident * 4096;
}

// Streams what goes to /files/...: /files/sum reads it all and answers "<bytes> <sum of the bytes> <announced size>",
// /files/refuse reads nothing, /files/part one piece, /files/wait as /files/sum but after `release`, and with a pause
// after each piece. Anything else answers with the body it got whole.
class Uploads final : public ThreeWays {
public:
    explicit Uploads(net::ServerLimits limits = quick_limits()) : ThreeWays(limits) {
        server.handler = [this](net::Request request) { return answer(std::move(request)); };
        server.on_loop([&] {
            (*server).stream_bodies([](net::Method, std::string_view path) { return path.starts_with("/files/"); });
        });
        listen();
    }
    ~Uploads() { end(); }
    Uploads(const Uploads&) = delete;
    Uploads& operator=(const Uploads&) = delete;

    std::atomic<int> handling{0};
    std::atomic<std::size_t> largest{0};  // piece
    std::atomic<std::size_t> read{0};
    std::atomic<base::Errc> fault{base::Errc::internal};
    std::atomic<int> faults{0};

private:
    asio::awaitable<net::Response> answer(net::Request request) {
        ++handling;
        if (!request.body_stream) co_return net::Response{.body = std::move(request.body)};
        if (!request.body.empty()) co_return net::Response{.status = 500};
        const bool waits = request.path == "/files/wait";
        while (waits && !release) co_await pause(2ms);
        if (request.path == "/files/refuse")
            co_return net::problem(403, "forbidden", "Forbidden", "no files for you", "id");
        std::size_t bytes = 0;
        std::uint64_t sum = 0;
        while (true) {
            const auto piece = co_await request.body_stream();
            if (!piece) {
                fault = piece.error().code;
                ++faults;
                const auto again = co_await request.body_stream();
                if (again || again.error().code != piece.error().code) fault = base::Errc::internal;
                co_return net::problem(400, base::name_of(piece.error().code), "No", piece.error().detail, "id");
            }
            if (!*piece) break;
            bytes += (*piece)->size();
            read = bytes;
            largest = std::max(largest.load(), (*piece)->size());
            for (const char c : **piece) sum += static_cast<unsigned char>(c);
            if (request.path == "/files/part") co_return net::Response{.status = 507, .body = **piece};
            if (waits) co_await pause(1ms);
        }
        const auto end = co_await request.body_stream();  // nothing more, however often one asks
        if (!end || *end) co_return net::Response{.status = 500};
        co_return net::Response{
            .body = fmt::format("{} {} {}", bytes, sum,
                                request.body_size ? std::to_string(*request.body_size) : std::string{"unknown"})};
    }
};

std::string put(std::string_view path, std::string_view headers, std::string_view body = {}) {
    return fmt::format("PUT {} HTTP/1.1\r\nHost: a\r\n{}\r\n{}", path, headers, body);
}

// A body of `size` bytes 'x', in pieces.
struct Source {
    std::size_t left;
    std::size_t piece = 40'000;
    std::atomic<int> asked{0};

    asio::awaitable<Piece> next() {
        ++asked;
        if (left == 0) co_return std::nullopt;
        const auto count = std::min(left, piece);
        left -= count;
        co_return std::string(count, 'x');
    }
};

net::ClientRequest put_request(std::string target) {
    net::ClientRequest request;
    request.method = net::Method::put;
    request.target = std::move(target);
    return request;
}

net::ClientRequest upload(std::string target, Source& source, std::optional<std::uint64_t> size = {}) {
    auto request = put_request(std::move(target));
    request.body_source = [&source] { return source.next(); };
    request.body_size = size;
    return request;
}

}  // namespace

TEST_CASE("a body is handed on as it comes, and the connection serves on") {
    Uploads uploads;
    auto wire = Wire::tcp(uploads.port);
    REQUIRE(wire.send(put("/files/sum", "Content-Length: 5\r\n", "ab")));
    CHECK(eventually([&] { return uploads.read == 2; }));
    REQUIRE(
        wire.send("cde" + put("/files/sum", "Transfer-Encoding: chunked\r\n", "2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n")));
    CHECK(body_of(wire.response()) == "5 495 5");
    CHECK(body_of(wire.response()) == "3 294 unknown");
    REQUIRE(wire.send(put("/files/sum", "Content-Length: 0\r\n") + put("/files/sum", "") +
                      put("/else", "Content-Length: 2\r\n", "hi")));
    CHECK(body_of(wire.response()) == "0 0 0");
    CHECK(body_of(wire.response()) == "0 0 0");
    CHECK(body_of(wire.response()) == "hi");
    CHECK(uploads.server.connections() == 1);
}

TEST_CASE("the limit of bodies is for those that are held whole") {
    Uploads uploads;
    const std::size_t size = 1'000'000;
    auto wire = Wire::tcp(uploads.port);
    REQUIRE(wire.send(put("/files/sum", fmt::format("Content-Length: {}\r\n", size), std::string(size, 'x'))));
    CHECK(body_of(wire.response()) == fmt::format("{} {} {}", size, size * 'x', size));
    REQUIRE(wire.send(put("/files/sum", "Transfer-Encoding: chunked\r\n")));
    for (int i = 0; i < 20; ++i) REQUIRE(wire.send("c350\r\n" + std::string(50'000, 'x') + "\r\n"));
    REQUIRE(wire.send("0\r\n\r\n"));
    CHECK(body_of(wire.response()) == fmt::format("{} {} unknown", size, size * 'x'));
    CHECK(uploads.largest <= 64 * 1024);
    REQUIRE(wire.send(put("/else", fmt::format("Content-Length: {}\r\n", size))));
    CHECK(status_of(wire.response()) == 413);
}

TEST_CASE("who waits for the word gets it when the body is asked for, and not before") {
    Uploads uploads;
    auto wire = Wire::tcp(uploads.port);
    REQUIRE(wire.send(put("/files/wait", "Content-Length: 2\r\nExpect: 100-continue\r\n")));
    CHECK(eventually([&] { return uploads.handling == 1; }));
    uploads.release = true;
    CHECK(status_of(wire.response(true)) == 100);
    REQUIRE(wire.send("ab"));
    CHECK(body_of(wire.response()) == "2 195 2");
    // A refusal spares the body its way.
    REQUIRE(wire.send(put("/files/refuse", "Content-Length: 2\r\nExpect: 100-continue\r\n")));
    const auto refused = wire.response();
    CHECK(status_of(refused) == 403);
    CHECK(header_of(refused, "Connection") == "close");
    CHECK(wire.ended());
}

TEST_CASE("what a handler leaves of a body ends the connection after the answer, which arrives") {
    Uploads uploads;
    auto wire = Wire::tcp(uploads.port);
    REQUIRE(wire.send(put("/files/part", "Content-Length: 3000000\r\n")));
    REQUIRE(wire.send(std::string(2'000'000, 'x')));
    const auto answer = wire.response();
    CHECK(status_of(answer) == 507);
    CHECK(header_of(answer, "Connection") == "close");
    CHECK(wire.ended());
    // Unless all of it is here already.
    auto other = Wire::tcp(uploads.port);
    REQUIRE(other.send(put("/files/part", "Content-Length: 3\r\n", "abc") + get("/x")));
    CHECK(body_of(other.response()) == "abc");
    CHECK(status_of(other.response()) == 200);
}

TEST_CASE("the limit of time is for each wait for more") {
    auto limits = quick_limits();
    limits.body = 300ms;
    Uploads uploads{limits};
    auto wire = Wire::tcp(uploads.port);
    REQUIRE(wire.send(put("/files/sum", "Content-Length: 8\r\n")));
    for (int i = 0; i < 8; ++i) {
        std::this_thread::sleep_for(60ms);
        REQUIRE(wire.send("x"));
    }
    CHECK(body_of(wire.response()) == "8 960 8");
    REQUIRE(wire.send(put("/files/sum", "Content-Length: 8\r\n", "x")));
    const auto late = wire.response();
    CHECK(status_of(late) == 400);
    CHECK(header_of(late, "Connection") == "close");
    CHECK(uploads.fault == base::Errc::deadline_exceeded);
    CHECK(wire.ended());
}

TEST_CASE("a body that breaks off, or is none, is a fault to the handler") {
    Uploads uploads;
    for (const std::string bad : {"5\r\nab", "x\r\n", "2\r\nabcd\r\n0\r\n\r\n"}) {
        auto wire = Wire::tcp(uploads.port);
        REQUIRE(wire.send(put("/files/sum", "Transfer-Encoding: chunked\r\n", bad)));
        if (bad == "5\r\nab")
            wire.hang_up();
        else
            CHECK(status_of(wire.response()) == 400);
    }
    CHECK(eventually([&] { return uploads.faults == 3 && uploads.server.connections() == 0; }));
    CHECK(uploads.fault == base::Errc::source_unavailable);
}

TEST_CASE("a place in flight is taken while a body comes, and who hung up gives it back") {
    auto limits = quick_limits();
    limits.in_flight_per_identity = 1;
    Uploads uploads{limits};
    auto wire = Wire::unix_socket(uploads.path);
    REQUIRE(wire.send(put("/files/sum", "Content-Length: 8\r\n", "x")));
    CHECK(eventually([&] { return uploads.read == 1; }));
    std::this_thread::sleep_for(50ms);  // not taken for one who hung up
    auto other = Wire::unix_socket(uploads.path);
    REQUIRE(other.send(get("/x")));
    CHECK(status_of(other.response()) == 429);
    wire.hang_up();
    CHECK(eventually([&] {
        REQUIRE(other.send(get("/x")));
        return status_of(other.response()) == 200;
    }));
    // In the middle of what the handler does beside reading.
    auto idle = Wire::unix_socket(uploads.path);
    REQUIRE(idle.send(put("/files/wait", "Content-Length: 8\r\n", "x")));
    CHECK(eventually([&] { return uploads.handling >= 3; }));
    idle.hang_up();
    CHECK(eventually([&] { return uploads.server.connections() == 1; }));
}

TEST_CASE("a shutdown lets a body come to its end, within the grace") {
    Uploads uploads;
    auto wire = Wire::tcp(uploads.port);
    REQUIRE(wire.send(put("/files/sum", "Content-Length: 2\r\n", "a")));
    CHECK(eventually([&] { return uploads.read == 1; }));
    auto ended = std::async(std::launch::async, [&] { uploads.server.shut_down(1h); });
    CHECK(eventually([&] {
        try {
            static_cast<void>(Wire::tcp(uploads.port));
        } catch (const std::exception&) {
            return true;
        }
        return false;
    }));
    REQUIRE(wire.send("b"));
    const auto answer = wire.response();
    CHECK(body_of(answer) == "2 195 2");
    CHECK(header_of(answer, "Connection") == "close");
    wire.hang_up();
    ended.get();
}

TEST_CASE("the client sends a body as it comes into being, with its size or in chunks") {
    Uploads uploads;
    const auto peer = uploads.peers()[static_cast<std::size_t>(GENERATE(0, 1, 2))];
    const auto client = net::make_client(peer);
    const std::size_t size = 10'000'001;
    for (const bool known : {true, false}) {
        Source source{size};
        const auto response = uploads.server.await(
            client->send(upload("/files/sum", source, known ? std::optional{size} : std::nullopt)));
        REQUIRE(response);
        CHECK(response->body ==
              fmt::format("{} {} {}", size, size * 'x', known ? std::to_string(size) : std::string{"unknown"}));
    }
    for (const bool known : {true, false}) {
        Source nothing{0};
        const auto response = uploads.server.await(
            client->send(upload("/files/sum", nothing, known ? std::optional<std::uint64_t>{0} : std::nullopt)));
        REQUIRE(response);
        CHECK(response->body == (known ? "0 0 0" : "0 0 unknown"));
    }
    CHECK(uploads.server.await(client->send({.target = "/x", .headers = {}, .body = {}}))->status == 200);
    CHECK(eventually([&] { return uploads.server.connections() == 1; }));
}

TEST_CASE("a large body passes in little memory") {
    Uploads uploads;
    const auto client = net::make_client(uploads.peers()[0]);
    uploads.release = true;
    [[maybe_unused]] const auto before = resident_bytes();
    const std::size_t size = 300'000'000;
    Source source{size, 100'000};
    auto request = upload("/files/sum", source, size);
    const auto response = uploads.server.await(client->send(std::move(request)));
    REQUIRE(response);
    CHECK(response->body == fmt::format("{} {} {}", size, size * 'x', size));
    CHECK(uploads.largest <= 64 * 1024);
#if !__has_feature(address_sanitizer)  // it keeps what is freed
    const auto after = resident_bytes();
    CHECK((after < before || after - before < std::size_t{64} * 1024 * 1024));
#endif
}

TEST_CASE("an answer that comes before the body is sent is the answer") {
    Uploads uploads;
    const auto peer = uploads.peers()[static_cast<std::size_t>(GENERATE(0, 1, 2))];
    const auto client = net::make_client(peer);
    for (const std::string target : {"/files/refuse", "/files/part"}) {
        Source source{std::size_t{200} * 1024 * 1024};
        const auto response = uploads.server.await(client->send(upload(target, source)));
        REQUIRE(response);
        CHECK(response->status == (target == "/files/refuse" ? 403 : 507));
    }
    Source too_large{std::size_t{200} * 1024 * 1024};
    const auto refused =
        uploads.server.await(client->send(upload("/else", too_large, std::uint64_t{200} * 1024 * 1024)));
    REQUIRE(refused);
    CHECK(refused->status == 413);
    CHECK(uploads.server.await(client->send({.target = "/x", .headers = {}, .body = {}}))->status == 200);
}

TEST_CASE("a source that still waits when the answer is there is ended") {
    Uploads uploads;
    const auto client = net::make_client(uploads.peers()[2]);
    auto request = put_request("/files/refuse");
    std::atomic<bool> ended = false;
    const auto source = [&]() -> asio::awaitable<Piece> {
        asio::steady_timer timer{co_await asio::this_coro::executor, 1h};
        co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
        ended = true;
        co_return std::nullopt;
    };
    request.body_source = source;
    const auto response = uploads.server.await(client->send(std::move(request)));
    REQUIRE(response);
    CHECK(response->status == 403);
    CHECK(ended);
}

TEST_CASE("interim answers don't end an upload") {
    ServerFixture loop;
    ScriptedServer server{
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
         "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"}};
    const auto client = net::make_client(server.peer());
    Source source{5};
    const auto response = loop.await(client->send(upload("/x", source)));
    REQUIRE(response);
    CHECK(response->status == 201);
    CHECK(response->body == "ok");
}

TEST_CASE("a source that fails, throws or lies about its size ends the exchange") {
    Uploads uploads;
    const auto client = net::make_client(uploads.peers()[2]);
    auto failing = put_request("/files/sum");
    const auto fails = []() -> asio::awaitable<Piece> {
        co_return base::fail(base::Errc::io_error, "the disk is gone");
    };
    failing.body_source = fails;
    const auto failed = uploads.server.await(client->send(failing));
    REQUIRE_FALSE(failed);
    CHECK(failed.error().code == base::Errc::io_error);
    CHECK(failed.error().detail == "the disk is gone");

    const auto throws = []() -> asio::awaitable<Piece> {
        co_await pause(1ms);
        throw std::logic_error("a bug");
    };
    failing.body_source = throws;
    CHECK_THROWS_WITH(uploads.server.await(client->send(failing)), "a bug");

    for (const std::uint64_t size : {3U, 30'000U}) {
        Source source{20'000};
        const auto wrong = uploads.server.await(client->send(upload("/files/sum", source, size)));
        REQUIRE_FALSE(wrong);
        CHECK(wrong.error().code == base::Errc::io_error);
    }
    CHECK(eventually([&] { return uploads.server.connections() == 0; }));
    CHECK(uploads.faults == 4);  // none of them was taken for complete
}

TEST_CASE("a server that takes nothing is given up, and so is one that breaks off") {
    Uploads uploads;
    const auto client = net::make_client(uploads.peers()[static_cast<std::size_t>(GENERATE(0, 1, 2))]);
    Source source{std::size_t{200} * 1024 * 1024};
    auto request = upload("/files/wait", source);
    request.stream_idle = 200ms;
    const auto late = uploads.server.await(client->send(std::move(request)));
    REQUIRE_FALSE(late);
    CHECK(late.error().code == base::Errc::deadline_exceeded);

    Source again{std::size_t{200} * 1024 * 1024};
    auto answer = std::async(std::launch::async,
                             [&] { return uploads.server.await(client->send(upload("/files/wait", again))); });
    CHECK(eventually([&] { return uploads.handling == 2; }));
    uploads.server.shut_down(0ms);
    const auto broken = answer.get();
    REQUIRE_FALSE(broken);
    CHECK(broken.error().code == base::Errc::source_unavailable);
}

TEST_CASE("an upload can be cancelled, whatever it waits for") {
    Uploads uploads;
    const auto client = net::make_client(uploads.peers()[2]);
    asio::cancellation_signal stop;
    const bool in_source = GENERATE(true, false);
    Source source{std::size_t{200} * 1024 * 1024};
    auto request = upload("/files/wait", source);
    const auto slow = [&]() -> asio::awaitable<Piece> {
        ++source.asked;
        co_await pause(1h);
        co_return std::string{"late"};
    };
    if (in_source) request.body_source = slow;
    auto answer = uploads.server.start(client->send(std::move(request)), stop.slot());
    CHECK(eventually([&] { return source.asked > 0 && uploads.handling == 1; }));
    uploads.server.on_loop([&] {
        stop.emit(asio::cancellation_type::terminal);
        return true;
    });
    const auto result = answer.get();
    REQUIRE_FALSE(result);
    CHECK(result.error().code == base::Errc::cancelled);
}
