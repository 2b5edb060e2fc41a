// What tests of the web client share: a loop, the client on it, and how they look at what came.
#pragma once

#include "net/web.hpp"
#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/web_server.hpp"

#include <catch2/catch.hpp>

#include <memory>
#include <string>

namespace ghost::test {

// The server's certificate names localhost, 127.0.0.1 and images.example.
[[nodiscard]] inline net::TlsContext web_server_tls() {
    auto& all = certificates();
    static const auto files = all.files(
        "web",
        all.ca.issue({.common_name = "web", .alternative_names = "DNS:localhost,DNS:images.example,IP:127.0.0.1"}));
    return net::make_server_tls(files).value();
}

[[nodiscard]] inline net::ProxySettings through(std::uint16_t port, const std::string& credentials = {}) {
    return {.proxy = net::Proxy{"127.0.0.1", std::to_string(port), credentials}, .direct = {}};
}

struct WebScene {
    ServerFixture loop;
    WebServer server{web_server_tls()};
    std::unique_ptr<net::Web> web = client(true);

    [[nodiscard]] static std::unique_ptr<net::Web> client(bool allow_private, net::ProxySettings proxy = {}) {
        const auto address = [](const char* text) { return boost::asio::ip::make_address(text); };
        return net::make_web({.tls = certificates().client(""),
                              .allow_private_addresses = allow_private,
                              .proxy = proxy,
                              // Nobody is asked for names: these are all that there are.
                              .hosts = {{"images.example", {}},
                                        {"other.example", {}},
                                        {"inside.example", {address("10.1.2.3"), address("fd00::1")}},
                                        {"both.example", {address("10.1.2.3"), address("1.2.3.4")}}}});
    }

    net::Web::Answer get(net::WebRequest request) { return loop.await(web->get(std::move(request))); }
    net::Web::Answer get(const std::string& url) { return get(net::WebRequest{.url = url}); }

    net::WebResponse answer(net::WebRequest request) {
        auto answer = get(std::move(request));
        if (!answer) FAIL(answer.error().error.detail);
        return *std::move(answer);
    }
    net::WebResponse answer(const std::string& url) { return answer(net::WebRequest{.url = url}); }
    net::WebFailure failure(net::WebRequest request) {
        auto answer = get(std::move(request));
        REQUIRE_FALSE(answer);
        CAPTURE(answer.error().error.detail);
        CHECK_THAT(answer.error().error.detail, !Catch::Contains("s3cret"));
        return answer.error();
    }
    net::WebFailure failure(const std::string& url) { return failure(net::WebRequest{.url = url}); }
};

}  // namespace ghost::test
