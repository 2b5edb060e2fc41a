#include "net/url.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <string>

using namespace ghost;

namespace {

struct Case {
    const char* text;
    const char* host;
    const char* port;
    const char* target;
};

net::Url url(std::string_view text) {
    CAPTURE(text);
    const auto parsed = net::parse_url(text);
    REQUIRE(parsed);
    return *parsed;
}

}  // namespace

TEST_CASE("a URL is taken apart") {
    for (const auto& expected : {
             Case{"https://example.com", "example.com", "443", "/"},
             Case{"http://example.com", "example.com", "80", "/"},
             Case{"HTTPS://Images.Example.COM./a%20b", "images.example.com", "443", "/a%20b"},
             Case{"https://example.com:8443/a/../b?x=1&y#part", "example.com", "8443", "/a/../b?x=1&y"},
             Case{"https://example.com:?q", "example.com", "443", "/?q"},
             Case{"https://192.0.2.7/x", "192.0.2.7", "443", "/x"},
             Case{"https://[2001:DB8:0::1]:444/", "2001:db8::1", "444", "/"},
             Case{"https://xn--bcher-kva.example/", "xn--bcher-kva.example", "443", "/"},
         }) {
        const auto parsed = url(expected.text);
        CHECK(parsed.host == expected.host);
        CHECK(parsed.port == expected.port);
        CHECK(parsed.target == expected.target);
    }
}

TEST_CASE("what is no usable URL is refused in a sentence that keeps its secrets") {
    const auto long_one = "https://example.com/" + std::string(4096, 'a');
    for (const auto& [text, why] : {std::pair<std::string, const char*>{"", "it is empty"},
                                    {"example.com/x", "it is malformed"},
                                    {"/x", "it is malformed"},
                                    {"ftp://example.com/s3cret", "its scheme is not https"},
                                    {"file:///etc/s3cret", "its scheme is not https"},
                                    {"https:s3cret", "it names no host"},
                                    {"https://?s3cret", "it names no host"},
                                    {"https://user:s3cret@example.com/", "it names a user or a password"},
                                    {"https://example.com:0/s3cret", "its port is not"},
                                    {"https://example.com:65536/s3cret", "its port is not"},
                                    {"https://example.com:12ab/s3cret", "it is malformed"},
                                    {"https://[::1/s3cret", "it is malformed"},
                                    {"https://[v1.x]/s3cret", "it names no host"},
                                    {"https://ex%20ample.com/s3cret", "its host is not a DNS name"},
                                    {"https://b\xC3\xBC"
                                     "cher.example/s3cret",
                                     "it is malformed"},
                                    {"https://a..b/s3cret", "its host is not a DNS name"},
                                    {"https://ten../s3cret", "its host is not a DNS name"},
                                    {"https://example.com/a b?s3cret", "it is malformed"},
                                    {"https://example.com/\r\nX: s3cret", "it is malformed"},
                                    {long_one, "longer than 4096"}}) {
        CAPTURE(text);
        const auto parsed = net::parse_url(text);
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().code == base::Errc::validation_failed);
        CHECK_THAT(parsed.error().detail, Catch::Contains(why) && Catch::Contains("https://host[:port]/path"));
        CHECK_THAT(parsed.error().detail, !Catch::Contains("s3cret"));
    }
}

TEST_CASE("a reference leads on from where it stands") {
    const auto base = url("https://example.com:8443/a/b?q=1");
    for (const auto& [reference, target] : {std::pair{"c", "https://example.com:8443/a/c"},
                                            {"/c?x", "https://example.com:8443/c?x"},
                                            {"../../c", "https://example.com:8443/c"},
                                            {"../../../c", "https://example.com:8443/c"},
                                            {"../..?y", "https://example.com:8443/?y"},
                                            {"./", "https://example.com:8443/a/"},
                                            {"?y", "https://example.com:8443/a/b?y"},
                                            {"//Other.example/c", "https://other.example/c"},
                                            {"https://other.example#x", "https://other.example/"},
                                            {"http://other.example:443/", "http://other.example:443/"},
                                            {"a b|\xC3\xBC", "https://example.com:8443/a/a%20b%7C%C3%BC"}}) {
        CAPTURE(reference);
        const auto next = net::resolve(base, reference);
        REQUIRE(next);
        CHECK(net::to_string(*next) == target);
    }
    CHECK(net::to_string(net::resolve(url("https://example.com"), "c").value()) == "https://example.com/c");
    for (const auto* reference :
         {"https://user@other.example/", "ftp://other.example/", "https://", "https://h:x/", "//h:80x/"})
        CHECK_FALSE(net::resolve(base, reference));
    CHECK_FALSE(net::resolve(base, std::string(5000, 'a')));
}

TEST_CASE("a URL is written as it is sent, and shown without its query") {
    const auto v6 = url("https://[::1]:8443/a?secret");
    CHECK(net::to_string(v6) == "https://[::1]:8443/a?secret");
    CHECK(net::without_query(v6) == "https://[::1]:8443/a");
    CHECK(net::authority_of(v6) == "[::1]:8443");
    CHECK(net::without_query(url("https://example.com:443?secret")) == "https://example.com/");
    CHECK(net::authority_of(url("https://example.com")) == "example.com:443");
}

TEST_CASE("an origin is scheme, host and port") {
    CHECK(net::same_origin(url("https://a.example/x"), url("https://A.example:443/y")));
    CHECK_FALSE(net::same_origin(url("https://a.example"), url("https://b.a.example")));
    CHECK_FALSE(net::same_origin(url("https://a.example"), url("https://a.example:8443")));
    CHECK_FALSE(net::same_origin(url("https://a.example:80"), url("http://a.example")));
}
