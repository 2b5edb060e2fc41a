#include "net/response_text.hpp"

#include <catch2/catch.hpp>

using namespace ghost;

namespace {

bool has_line(const std::string& text, const std::string& line) {
    return text.find("\r\n" + line + "\r\n") != std::string::npos;
}

}  // namespace

TEST_CASE("a response has its length, its type, its ids and its body") {
    net::Response response{.status = 201, .body = "{}"};
    response.headers.set("Location", "/v1/vms/a");
    const auto text = net::to_wire(response, {.request_id = "id-1", .traceparent = "trace"});
    CHECK(text.starts_with("HTTP/1.1 201 Created\r\n"));
    CHECK(has_line(text, "Content-Length: 2"));
    CHECK(has_line(text, "Content-Type: application/json"));
    CHECK(has_line(text, "X-Request-Id: id-1"));
    CHECK(has_line(text, "traceparent: trace"));
    CHECK(has_line(text, "Location: /v1/vms/a"));
    CHECK(has_line(text, "Server: ghost-agent"));
    CHECK(text.ends_with("\r\n\r\n{}"));
    CHECK(text.find("Connection") == std::string::npos);
}

TEST_CASE("HEAD has the headers of the body without the body") {
    const auto text = net::to_wire({.body = "12345"}, {.head_only = true});
    CHECK(has_line(text, "Content-Length: 5"));
    CHECK(text.ends_with("\r\n\r\n"));
}

TEST_CASE("a streamed body has no length, and chunks where the version knows them") {
    const net::Response response{.body = "not this",
                                 .content_type = "text/event-stream",
                                 .stream = []() -> boost::asio::awaitable<net::Chunk> { co_return nullptr; }};
    const auto text = net::to_wire(response, {});
    CHECK(has_line(text, "Transfer-Encoding: chunked"));
    CHECK(has_line(text, "Content-Type: text/event-stream"));
    CHECK(text.find("Content-Length") == std::string::npos);
    CHECK(text.ends_with("\r\n\r\n"));
    CHECK(net::to_wire(response, {.head_only = true}) == text);
    const auto old = net::to_wire(response, {.keep_alive = false, .http_1_0 = true});
    CHECK(old.find("Transfer-Encoding") == std::string::npos);
    CHECK(old.find("Content-Length") == std::string::npos);
    CHECK(has_line(old, "Connection: close"));
}

TEST_CASE("204 and 304 have neither body nor length") {
    for (const unsigned status : {204U, 304U}) {
        const auto text = net::to_wire({.status = status, .body = "x"}, {});
        CHECK(text.find("Content-Length") == std::string::npos);
        CHECK(text.ends_with("\r\n\r\n"));
    }
}

TEST_CASE("no header value can add a header or a response") {
    net::Response response;
    response.headers.set("Location", "/a\r\nSet-Cookie: b\r\n\r\nHTTP/1.1 200 OK");
    response.headers.set("Bad Name\r\nX", "1");
    response.headers.set("Content-Length", "999");
    response.headers.set("Transfer-Encoding", "chunked");
    const auto text = net::to_wire(response, {});
    CHECK_FALSE(has_line(text, "Set-Cookie: b"));
    CHECK(text.find("Bad Name") == std::string::npos);
    CHECK(text.find("999") == std::string::npos);
    CHECK(text.find("Transfer-Encoding") == std::string::npos);
    CHECK(text.find("\r\n\r\n") == text.size() - 4);
}

TEST_CASE("the connection's fate is told where the version doesn't say it") {
    CHECK(has_line(net::to_wire({}, {.keep_alive = false}), "Connection: close"));
    CHECK(has_line(net::to_wire({}, {.keep_alive = true, .http_1_0 = true}), "Connection: keep-alive"));
}

TEST_CASE("dates have RFC 9110's form") {
    CHECK(net::http_date(base::from_unix_ms(784111777000)) == "Sun, 06 Nov 1994 08:49:37 GMT");
}
