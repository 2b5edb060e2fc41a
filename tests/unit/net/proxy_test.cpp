#include "net/proxy.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <string>

using namespace ghost;

namespace {

using Variables = std::map<std::string, std::string>;

base::Result<net::ProxySettings> read(const Variables& variables) {
    return net::proxy_from_environment([&variables](const std::string& name) -> std::optional<std::string> {
        const auto found = variables.find(name);
        return found == variables.end() ? std::nullopt : std::optional{found->second};
    });
}

std::string proxy_of(const Variables& variables) {
    const auto settings = read(variables);
    REQUIRE(settings);
    return settings->proxy ? net::describe(*settings->proxy) : "none";
}

bool direct(const std::string& no_proxy, const std::string& url) {
    const auto settings = read({{"https_proxy", "http://proxy.example"}, {"no_proxy", no_proxy}});
    REQUIRE(settings);
    return !net::proxy_for(*settings, net::parse_url(url).value());
}

std::string fault(const Variables& variables) {
    const auto settings = read(variables);
    REQUIRE_FALSE(settings);
    CHECK(settings.error().code == base::Errc::validation_failed);
    CHECK_THAT(settings.error().detail, !Catch::Contains("s3cret"));
    return settings.error().detail;
}

}  // namespace

TEST_CASE("the proxy is the first that the environment names") {
    CHECK(proxy_of({}) == "none");
    CHECK(proxy_of({{"http_proxy", "http://p.example:1"}}) == "none");
    CHECK(proxy_of({{"https_proxy", "http://a.example:1"}, {"HTTPS_PROXY", "http://b.example:2"}}) ==
          "http://a.example:1");
    CHECK(proxy_of({{"https_proxy", ""}, {"HTTPS_PROXY", "http://b.example:2"}}) == "http://b.example:2");
    CHECK(proxy_of({{"ALL_PROXY", "p.example:3128"}}) == "http://p.example:3128");
    CHECK(proxy_of({{"all_proxy", "HTTP://P.example/"}}) == "http://p.example:1080");
    CHECK(proxy_of({{"https_proxy", "http://[fd00::1]:3128"}}) == "http://[fd00::1]:3128");
    CHECK(proxy_of({{"https_proxy", "10.0.0.1"}}) == "http://10.0.0.1:1080");
}

TEST_CASE("a proxy's credentials are decoded, and not shown") {
    const auto settings = read({{"https_proxy", "http://us%40er:pa%3Ass@p.example:3128"}});
    REQUIRE(settings);
    CHECK(settings->proxy->credentials == "us@er:pa:ss");
    CHECK(net::describe(*settings->proxy) == "http://p.example:3128");
}

TEST_CASE("a broken variable is named, without what it holds") {
    for (const auto* value : {"http://user:s3cret@", "http://user:s3cret@p.example:0",
                              "http://u:s3cret@p.example:70000", "https://u:s3cret@p.example",
                              "socks5://u:s3cret@p.example", "http://u:s3cret@p x", "://", "http://u:s3cret@p:80x"}) {
        CAPTURE(value);
        CHECK_THAT(fault({{"HTTPS_PROXY", value}}), Catch::Contains("environment variable HTTPS_PROXY"));
    }
    CHECK_THAT(fault({{"all_proxy", "https://p.example"}}), Catch::Contains("all_proxy") && Catch::Contains("http://"));
    for (const auto* value : {"10.0.0.0/33", "a.example,/8", "a.example:0", "[::1", "a:b:c"}) {
        CAPTURE(value);
        CHECK_THAT(fault({{"NO_PROXY", value}}), Catch::Contains("NO_PROXY has an entry"));
    }
}

TEST_CASE("who is reached without the proxy") {
    const std::string list = "example.com, .internal\tHOST.lan:8443 10.0.0.0/8,192.0.2.7,fd00::/8,[2001:db8::1]:444";
    for (const auto* url : {"https://example.com", "https://a.b.EXAMPLE.com", "https://internal", "https://x.internal",
                            "https://host.lan:8443", "https://10.1.2.3", "https://192.0.2.7:8443", "https://[fd12::1]",
                            "https://[2001:db8::1]:444"}) {
        CAPTURE(url);
        CHECK(direct(list, url));
    }
    for (const auto* url : {"https://notexample.com", "https://example.com.evil.example", "https://host.lan",
                            "https://11.0.0.1", "https://192.0.2.8", "https://[2001:db8::1]", "https://localhost"}) {
        CAPTURE(url);
        CHECK_FALSE(direct(list, url));
    }
    CHECK(direct("*", "https://anything.example"));
    CHECK(direct("*.example.com", "https://a.example.com"));
    CHECK_FALSE(direct(" , ", "https://anything.example"));
}
