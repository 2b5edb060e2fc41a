// Fetching over HTTPS: redirects, what each origin is told, and how a body is taken.
#include "tests/component/net/web_scene.hpp"

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <atomic>
#include <string>
#include <vector>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;

TEST_CASE("an answer is one whatever its status; only a success has its body read") {
    WebScene scene;
    scene.server.on("/a?x=1", ok("all of it", "X-Kind: text\r\n"));
    scene.server.on("/long", "HTTP/1.1 503 Busy\r\n\r\n" + std::string(100'000, 'x'));
    net::WebRequest request{.url = scene.server.url("/a?x=1#part")};
    request.headers.set("Range", "bytes=7-");
    const auto answer = scene.answer(request);
    CHECK(answer.status == 200);
    CHECK(answer.body == "all of it");
    CHECK(answer.headers.find("X-Kind") == "text");
    CHECK(answer.url == scene.server.url("/a?x=1"));
    const auto asked = scene.server.requests().front();
    CHECK_THAT(asked, Catch::StartsWith("GET /a?x=1 HTTP/1.1\r\n"));
    CHECK_THAT(asked, Catch::Contains("Host: localhost:" + std::to_string(scene.server.port()) + "\r\n"));
    CHECK_THAT(asked, Catch::Contains("Accept-Encoding: identity\r\n") && Catch::Contains("User-Agent: ghost-agent/"));
    CHECK_THAT(asked, Catch::Contains("Range: bytes=7-\r\n"));

    CHECK(scene.answer(scene.server.url("/none")).status == 404);
    const auto busy = scene.answer(scene.server.url("/long"));
    CHECK(busy.status == 503);
    CHECK(busy.body.empty());
}

TEST_CASE("redirects are followed to where they lead") {
    WebScene scene;
    auto& server = scene.server;
    server.on("/a/1", redirect(301, "2"));
    server.on("/a/2", redirect(302, "/3?q=1"));
    server.on("/3?q=1", redirect(303, server.url("/4", "127.0.0.1")));
    server.on("/4", redirect(307, "//localhost:" + std::to_string(server.port()) + "/5"));
    server.on("/5", redirect(308, "6#part"));
    server.on("/6", ok("here"));
    const auto answer = scene.answer(server.url("/a/1"));
    CHECK(answer.body == "here");
    CHECK(answer.url == server.url("/6"));
    CHECK(server.requests().size() == 6);

    server.on("/nowhere", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n");
    server.on("/unchanged", "HTTP/1.1 304 Not Modified\r\nLocation: /6\r\n\r\n");
    CHECK(scene.answer(server.url("/nowhere")).status == 302);
    CHECK(scene.answer(server.url("/unchanged")).status == 304);
}

TEST_CASE("a chain of redirects without an end is left") {
    WebScene scene;
    scene.server.on("/loop", redirect(302, "/loop?s3cret"));
    scene.server.on("/loop?s3cret", redirect(302, "/loop"));
    const auto failure = scene.failure(scene.server.url("/loop"));
    CHECK(failure.permanent);
    CHECK(failure.error.code == base::Errc::source_unavailable);
    CHECK(failure.error.detail == "more than 5 redirects; the last was to " + scene.server.url("/loop"));
    CHECK(scene.server.requests().size() == 6);
}

TEST_CASE("redirects to anything but HTTPS are not followed") {
    WebScene scene;
    for (const auto* location : {"http://localhost/a?s3cret", "ftp://localhost/a?s3cret", "https://u:s3cret@localhost/",
                                 "https://local host/s3cret"}) {
        CAPTURE(location);
        scene.server.on("/a?s3cret", redirect(302, location));
        const auto failure = scene.failure(scene.server.url("/a?s3cret"));
        CHECK(failure.permanent);
        CHECK(failure.error.code == base::Errc::source_unavailable);
        CHECK_THAT(failure.error.detail, Catch::StartsWith(scene.server.url("/a") + " redirects to "));
    }
}

TEST_CASE("secrets stay with the origin they were given for") {
    WebScene scene;
    auto& server = scene.server;
    server.on("/1", redirect(302, "/2"));
    server.on("/2", redirect(302, server.url("/3", "127.0.0.1")));
    server.on("/3", redirect(302, server.url("/4")));
    server.on("/4", ok("x"));
    net::WebRequest request{.url = server.url("/1")};
    request.headers.add("authorization", "Bearer s3cret");
    request.headers.add("Cookie", "a=s3cret");
    request.headers.add("Proxy-Authorization", "Basic s3cret");
    request.headers.add("If-Range", "\"tag\"");
    CHECK(scene.answer(request).body == "x");
    const auto asked = server.requests();
    REQUIRE(asked.size() == 4);
    for (const auto& head : asked) CHECK_THAT(head, Catch::Contains("If-Range: \"tag\""));
    for (const std::size_t same : {0U, 1U})
        CHECK_THAT(asked[same],
                   Catch::Contains("Bearer s3cret") && Catch::Contains("a=s3cret") && Catch::Contains("Basic s3cret"));
    for (const std::size_t other : {2U, 3U}) CHECK_THAT(asked[other], !Catch::Contains("s3cret"));
}

TEST_CASE("a body is handed on as it comes, the head before it, and only that of the last success") {
    WebScene scene;
    std::string body(5'000'000, 'x');
    for (std::size_t i = 0; i < body.size(); i += 1000) body[i] = static_cast<char>('a' + i / 1000 % 26);
    scene.server.on("/1", redirect(302, "/2"));
    scene.server.on("/2", ok(body, "ETag: \"v1\"\r\n"));
    std::string seen;
    std::vector<std::string> heads;
    int waits = 0;
    net::WebRequest request{.url = scene.server.url("/1"), .max_body = 10};
    request.on_head = [&](const net::WebResponse& head) {
        CHECK(seen.empty());
        CHECK(head.status == 200);
        CHECK(head.headers.find("ETag") == "\"v1\"");
        heads.push_back(head.url);
        return true;
    };
    request.on_body = [&](std::string_view piece) {
        seen.append(piece);
        return true;
    };
    request.ready_for_more = [&]() -> boost::asio::awaitable<bool> {
        ++waits;
        co_return true;
    };
    const auto answer = scene.answer(request);
    CHECK(answer.body.empty());
    CHECK(seen == body);
    CHECK(heads == std::vector{scene.server.url("/2")});
    CHECK(waits > 10);

    heads.clear();
    seen.clear();
    waits = 0;
    request.url = scene.server.url("/none");
    CHECK(scene.answer(request).status == 404);
    CHECK((heads.empty() && seen.empty() && waits == 0));
}

TEST_CASE("whoever is handed a body may end it at the head, at a piece or before a read") {
    WebScene scene;
    scene.server.on("/", ok(std::string(1'000'000, 'x')));
    net::WebRequest request{.url = scene.server.url("/")};
    std::size_t seen = 0;
    request.on_body = [&](std::string_view piece) {
        seen += piece.size();
        return true;
    };
    auto at_head = request;
    at_head.on_head = [](const net::WebResponse&) { return false; };
    CHECK(scene.answer(at_head).status == 200);
    CHECK(seen == 0);

    auto at_piece = request;
    at_piece.on_body = [&](std::string_view piece) {
        seen += piece.size();
        return false;
    };
    CHECK(scene.answer(at_piece).status == 200);
    CHECK((seen > 0 && seen < 1'000'000));

    seen = 0;
    auto at_wait = request;
    at_wait.ready_for_more = []() -> boost::asio::awaitable<bool> { co_return false; };
    CHECK(scene.answer(at_wait).status == 200);
    CHECK(seen < 1'000'000);
}

TEST_CASE("a body that is too large to collect, or coded, is refused") {
    WebScene scene;
    scene.server.on("/large?s3cret", ok(std::string(2000, 'x')));
    scene.server.on("/coded?s3cret", ok("x", "Content-Encoding: gzip\r\n"));
    scene.server.on("/plain", ok("x", "Content-Encoding: Identity\r\n"));
    const auto large = scene.failure({.url = scene.server.url("/large?s3cret"), .max_body = 1999});
    CHECK(large.error.code == base::Errc::body_too_large);
    CHECK(scene.answer({.url = scene.server.url("/large?s3cret"), .max_body = 2000}).body.size() == 2000);
    const auto coded = scene.failure(scene.server.url("/coded?s3cret"));
    CHECK(coded.error.code == base::Errc::source_unavailable);
    CHECK(coded.permanent);
    CHECK_THAT(coded.error.detail, Catch::Contains(scene.server.url("/coded") + " has a coded body"));
    CHECK(scene.answer(scene.server.url("/plain")).body == "x");
}

TEST_CASE("the pace of who takes a body is no silence of the server's, and can be cancelled") {
    WebScene scene;
    scene.server.on("/", ok(std::string(1'000'000, 'x')));
    net::WebRequest request{.url = scene.server.url("/"), .idle = 1s};
    std::atomic<int> waiting{0};
    std::size_t seen = 0;
    request.on_body = [&](std::string_view piece) {
        seen += piece.size();
        return true;
    };
    request.ready_for_more = [&]() -> boost::asio::awaitable<bool> {
        boost::asio::steady_timer timer{co_await boost::asio::this_coro::executor, ++waiting == 1 ? 1500ms : 0ms};
        co_await timer.async_wait(boost::asio::use_awaitable);
        co_return true;
    };
    CHECK(scene.answer(request).status == 200);
    CHECK(seen == 1'000'000);

    waiting = 0;
    request.ready_for_more = [&]() -> boost::asio::awaitable<bool> {
        ++waiting;
        boost::asio::steady_timer never{co_await boost::asio::this_coro::executor, base::Instant::max()};
        co_await never.async_wait(boost::asio::use_awaitable);
        co_return true;
    };
    boost::asio::cancellation_signal stop;
    auto answer = scene.loop.start(scene.web->get(request), stop.slot());
    REQUIRE(eventually([&] { return waiting == 1; }));
    scene.loop.on_loop([&] { stop.emit(boost::asio::cancellation_type::terminal); });
    const auto cancelled = answer.get();
    REQUIRE_FALSE(cancelled);
    CHECK(cancelled.error().error.code == base::Errc::cancelled);
    CHECK_FALSE(cancelled.error().permanent);
}
