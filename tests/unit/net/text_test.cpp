#include "net/text.hpp"

#include <catch2/catch.hpp>

#include <string>

using namespace ghost;

TEST_CASE("request ids are short and plain") {
    CHECK(net::is_request_id("a.B-9_"));
    CHECK(net::is_request_id(std::string(64, 'a')));
    CHECK_FALSE(net::is_request_id(std::string(65, 'a')));
    CHECK_FALSE(net::is_request_id(""));
    CHECK_FALSE(net::is_request_id("a b"));
    CHECK_FALSE(net::is_request_id("a\"b"));
}

TEST_CASE("a trace context is taken only when well-formed") {
    const std::string good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    CHECK(net::is_traceparent(good));
    CHECK(net::is_traceparent("01" + good.substr(2) + "-more"));
    CHECK_FALSE(net::is_traceparent(good + "-more"));
    CHECK_FALSE(net::is_traceparent("ff" + good.substr(2)));
    CHECK_FALSE(net::is_traceparent("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"));
    CHECK_FALSE(net::is_traceparent("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
    CHECK_FALSE(net::is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
    CHECK_FALSE(net::is_traceparent(good.substr(1)));
    CHECK_FALSE(net::is_traceparent(""));
}

TEST_CASE("only well-formed UTF-8 passes") {
    for (const std::string good : {"", "abc", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x91\xbb", "\xf4\x8f\xbf\xbf"})
        CHECK(net::is_utf8(good));
    for (const std::string bad : {"\xff", "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                  "\xf5\x80\x80\x80", "\x80", "\xe2\x82", "a\xc3("}) {
        CAPTURE(bad);
        CHECK_FALSE(net::is_utf8(bad));
    }
}

TEST_CASE("a list knows its members whatever their case and spacing") {
    CHECK(net::list_has("keep-alive,  Upgrade", "upgrade"));
    CHECK(net::list_has("close", "Close"));
    CHECK_FALSE(net::list_has("closed, no-close", "close"));
    CHECK_FALSE(net::list_has("", "close"));
}
