#include "net/request_parser.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>

using namespace ghost;
using Step = net::RequestParser::Step;

namespace {

constexpr std::size_t header_limit = 16 * 1024;
constexpr std::size_t body_limit = 64 * 1024;

// Feeds `bytes` in pieces of `piece` and stops at the first end of a request.
Step feed(net::RequestParser& parser, std::string_view bytes, std::size_t piece = 1 << 20) {
    while (true) {
        auto step = parser.advance();
        if (step == Step::head) continue;
        if (step != Step::need_more || bytes.empty()) return step;
        const auto room = parser.prepare();
        REQUIRE_FALSE(room.empty());
        const auto count = std::min({bytes.size(), room.size(), piece});
        std::memcpy(room.data(), bytes.data(), count);
        parser.commit(count);
        bytes.remove_prefix(count);
    }
}

unsigned refused_with(std::string_view bytes) {
    net::RequestParser parser{header_limit, body_limit};
    if (feed(parser, bytes) != Step::refused) return 0;
    CHECK_FALSE(parser.keep_alive());
    return parser.refusal().status;
}

std::string get_with(std::string_view headers) {
    return "GET / HTTP/1.1\r\nHost: a\r\n" + std::string{headers} + "\r\n";
}

}  // namespace

TEST_CASE("a request is the same in one piece and byte by byte") {
    const std::string text =
        "POST /v1/vms?dry_run=true HTTP/1.1\r\nHost: a\r\nX-Request-Id: r1\r\nContent-Length: 4\r\n\r\nbody";
    for (const std::size_t piece : {std::size_t{1}, std::size_t{3}, text.size()}) {
        net::RequestParser parser{header_limit, body_limit};
        REQUIRE(feed(parser, text, piece) == Step::done);
        const auto& request = parser.request();
        CHECK(request.method == net::Method::post);
        CHECK(request.path == "/v1/vms");
        CHECK(request.query_value("dry_run") == "true");
        CHECK(request.headers.find("x-request-id") == "r1");
        CHECK(request.body == "body");
        CHECK(parser.keep_alive());
    }
}

TEST_CASE("a body without a chunk in it ends the same however it is cut up") {
    const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (const std::string body : {"0\r\n\r\n", "00\r\n\r\n", "0;a=b\r\n\r\n", "0\r\nA: b\r\n\r\n"})
        for (std::size_t cut = 0; cut < body.size(); ++cut) {
            CAPTURE(body, cut);
            net::RequestParser parser{header_limit, body_limit};
            REQUIRE(feed(parser, head + body.substr(0, cut)) == Step::need_more);
            REQUIRE(feed(parser, body.substr(cut), 1) == Step::done);
            CHECK(parser.request().body.empty());
        }
    CHECK(refused_with(head + "0\r\nx\r\n\r\n") == 400);
}

TEST_CASE("chunks are put together and the trailer adds no headers") {
    net::RequestParser parser{header_limit, body_limit};
    const auto step = feed(parser,
                           "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Request-Id: late\r\n\r\n",
                           1);
    REQUIRE(step == Step::done);
    CHECK(parser.request().body == "abcde");
    CHECK_FALSE(parser.request().headers.find("X-Request-Id"));
}

TEST_CASE("pipelined requests come out one after the other") {
    net::RequestParser parser{header_limit, body_limit};
    REQUIRE(feed(parser,
                 "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
                 "GET /3 HTTP/1.0\r\n\r\n") == Step::done);
    CHECK(parser.request().path == "/1");
    parser.next();
    CHECK(parser.started());
    REQUIRE(feed(parser, {}) == Step::done);
    CHECK(parser.request().path == "/2");
    CHECK(parser.request().body == "x");
    parser.next();
    REQUIRE(feed(parser, {}) == Step::done);
    CHECK(parser.request().path == "/3");
    CHECK(parser.http_1_0());
    CHECK_FALSE(parser.keep_alive());
    parser.next();
    CHECK_FALSE(parser.started());
}

TEST_CASE("the shapes requests are smuggled in are refused") {
    const std::string post = "POST / HTTP/1.1\r\nHost: a\r\n";
    CHECK(refused_with(post + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == 400);
    CHECK(refused_with(post + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n") == 400);
    CHECK(refused_with(post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab") == 400);
    CHECK(refused_with(post + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na") == 400);
    CHECK(refused_with(post + "Content-Length: 1, 1\r\n\r\na") == 400);
    CHECK(refused_with(post + "Content-Length: +1\r\n\r\na") == 400);
    CHECK(refused_with(post + "Content-Length: -1\r\n\r\na") == 400);
    CHECK(refused_with(post + "Content-Length: 0x1\r\n\r\na") == 400);
    CHECK(refused_with(post + "Content-Length : 1\r\n\r\na") == 400);
    CHECK(refused_with(post + "Content-Length: 99999999999999999999999\r\n\r\n") == 400);
    CHECK(refused_with(post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n") == 400);
    CHECK(refused_with(post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n") == 400);
    CHECK(refused_with(post + "Transfer-Encoding: identity\r\n\r\n") == 400);
    CHECK(refused_with(post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == 400);
    CHECK(refused_with("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == 400);
    CHECK(refused_with(get_with("X: a\r\n folded\r\n")) == 400);
    CHECK(refused_with(get_with("X: a\r\n\tfolded\r\n")) == 400);
    CHECK(refused_with("GET / HTTP/1.1\nHost: a\n\n") == 400);
    CHECK(refused_with("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n") == 400);
    CHECK(refused_with("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n") == 400);
}

TEST_CASE("what is no HTTP/1.1 is refused at once") {
    CHECK(refused_with("\x16\x03\x01\x02") == 400);        // a TLS hello on a plain port
    CHECK(refused_with("GET / HTTP/1.1\r\n\r\n") == 400);  // no Host
    CHECK(refused_with("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n") == 400);
    CHECK(refused_with("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n") == 400);
    CHECK(refused_with("GET x HTTP/1.1\r\nHost: a\r\n\r\n") == 400);
    CHECK(refused_with("GET /  HTTP/1.1\r\nHost: a\r\n\r\n") == 505);  // its version is " HTTP/1.1"
    CHECK(refused_with("GET / HTTP/2.0\r\nHost: a\r\n\r\n") == 505);
    CHECK(refused_with(get_with(std::string_view{"X: a\0b\r\n", 8})) == 400);
    CHECK(refused_with("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n") == 400);
    CHECK(refused_with("POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 1\r\n\r\n") == 417);
}

TEST_CASE("headers beyond the limit are refused, finished or not") {
    CHECK(refused_with(get_with("X: " + std::string(header_limit, 'a') + "\r\n")) == 431);
    CHECK(refused_with("GET /" + std::string(header_limit, 'a')) == 431);
    CHECK(refused_with(get_with("X: " + std::string(header_limit - 100, 'a') + "\r\n")) == 0);
}

TEST_CASE("a body beyond the limit is refused by its length, before it comes, and by its chunks") {
    CHECK(refused_with("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n") == 413);
    std::string chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (int i = 0; i < 5; ++i) chunked += "4000\r\n" + std::string(0x4000, 'x') + "\r\n";
    CHECK(refused_with(chunked) == 413);
    CHECK(refused_with("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n") == 413);

    net::RequestParser parser{header_limit, body_limit};
    const std::string whole = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n" + std::string(65536, 'x');
    REQUIRE(feed(parser, whole) == Step::done);
    CHECK(parser.request().body.size() == 65536);
}

TEST_CASE("endless chunk extensions and trailers run into a bound") {
    const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    CHECK(refused_with(head + "1;" + std::string(100'000, 'a')) != 0);
    CHECK(refused_with(head + "0\r\nX: " + std::string(100'000, 'a')) != 0);
}

TEST_CASE("a refused request can still be named in its answer") {
    net::RequestParser parser{header_limit, body_limit};
    REQUIRE(feed(parser, "POST / HTTP/1.1\r\nHost: a\r\nX-Request-Id: r9\r\nContent-Length: 9999999\r\n\r\n") ==
            Step::refused);
    CHECK(parser.request().headers.find("X-Request-Id") == "r9");
}

TEST_CASE("a client that waits for 100 Continue is known until its body comes") {
    net::RequestParser parser{header_limit, body_limit};
    const std::string_view head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
    std::memcpy(parser.prepare().data(), head.data(), head.size());
    parser.commit(head.size());
    REQUIRE(parser.advance() == Step::head);
    CHECK(parser.expects_continue());
    REQUIRE(feed(parser, "ab") == Step::done);
    CHECK_FALSE(parser.expects_continue());
}

TEST_CASE("a body that is streamed is taken in pieces, whatever its size, and then comes the next request") {
    net::RequestParser parser{header_limit, body_limit, [](net::Method method, std::string_view path) {
                                  return method == net::Method::put && path == "/file";
                              }};
    const std::size_t size = 5 * body_limit;
    const bool chunked = GENERATE(true, false);
    std::string wire = "PUT /file?x HTTP/1.1\r\nHost: a\r\n";
    if (chunked) {
        wire += "Transfer-Encoding: chunked\r\n\r\n";
        for (std::size_t sent = 0; sent < size; sent += 0x8000) wire += "8000\r\n" + std::string(0x8000, 'x') + "\r\n";
        wire += "0\r\n\r\n";
    } else {
        wire += "Content-Length: " + std::to_string(size) + "\r\n\r\n" + std::string(size, 'x');
    }
    wire += "PUT /else HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    std::string_view rest{wire};
    std::size_t taken = 0;
    auto step = Step::need_more;
    while ((step = parser.advance()) != Step::done) {
        if (step == Step::head) {
            CHECK(parser.streams_body());
            CHECK(parser.body_size() == (chunked ? std::nullopt : std::optional<std::uint64_t>{size}));
            continue;
        }
        REQUIRE(step == Step::need_more);
        taken += parser.take_body().size();
        const auto room = parser.prepare();
        const auto count = std::min(rest.size(), room.size());
        REQUIRE(count > 0);
        std::memcpy(room.data(), rest.data(), count);
        parser.commit(count);
        rest.remove_prefix(count);
    }
    taken += parser.take_body().size();
    CHECK(taken == size);
    CHECK(parser.request().body.empty());
    CHECK(parser.take_body().empty());
    parser.next();
    REQUIRE(feed(parser, rest) == Step::done);
    CHECK_FALSE(parser.streams_body());
    CHECK(parser.request().body == "hi");
    CHECK(parser.take_body().empty());
    CHECK_FALSE(parser.has_more());
    parser.release();
    CHECK(parser.advance() == Step::refused);
}
