// What keeps a fetch from coming to its end, and whether trying again may help.
#include "tests/component/net/web_scene.hpp"

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;

namespace {

net::ProxySettings except(net::ProxySettings settings, const std::string& domain) {
    settings.direct.push_back({.domain = domain});
    return settings;
}

}  // namespace

TEST_CASE("a body that breaks off is a fault that passes, after all that came") {
    for (const std::string rest :
         {"Content-Length: 9\r\n\r\none", "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n", "\r\none"}) {
        CAPTURE(rest);
        WebScene scene;
        scene.server.on("/a?s3cret", "HTTP/1.1 200 OK\r\n" + rest, After::cut);
        std::string seen;
        net::WebRequest request{.url = scene.server.url("/a?s3cret")};
        request.on_body = [&](std::string_view piece) {
            seen.append(piece);
            return true;
        };
        const auto failure = scene.failure(request);
        CHECK(failure.error.code == base::Errc::source_unavailable);
        CHECK_THAT(failure.error.detail, Catch::Contains("broke off") && Catch::Contains("https://localhost:"));
        CHECK_FALSE(failure.permanent);
        CHECK(seen == "one");
    }
    WebScene scene;
    scene.server.on("/", "HTTP/1.1 200 OK\r\n\r\none", After::goodbye);
    CHECK(scene.answer(scene.server.url("/")).body == "one");
}

TEST_CASE("silence has a limit, before the head and after it") {
    WebScene scene;
    scene.server.on("/head", "", After::silence);
    scene.server.on("/body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\none", After::silence);
    const auto head = scene.failure({.url = scene.server.url("/head"), .head_timeout = 300ms});
    CHECK(head.error.code == base::Errc::deadline_exceeded);
    CHECK_FALSE(head.permanent);
    const auto body = scene.failure({.url = scene.server.url("/body"), .idle = 300ms});
    CHECK(body.error.code == base::Errc::deadline_exceeded);
    CHECK_THAT(body.error.detail, Catch::Contains("fell silent"));
    CHECK_FALSE(body.permanent);
}

TEST_CASE("a text that comes drop by drop isn't waited for without end") {
    WebScene scene;
    scene.server.on("/drops", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + std::string(1000, 'x'), After::drip);
    const auto slow = scene.failure({.url = scene.server.url("/drops"), .idle = 5s, .collect_limit = 200ms});
    CHECK(slow.error.code == base::Errc::deadline_exceeded);
    CHECK_THAT(slow.error.detail, Catch::Contains("too slowly"));
    CHECK_FALSE(slow.permanent);
    // What is handed on is a download: it may take its time.
    std::string seen;
    net::WebRequest handed{.url = scene.server.url("/drops"), .idle = 5s, .collect_limit = 200ms};
    handed.on_body = [&](std::string_view piece) {
        seen += piece;
        return seen.size() < 60;
    };
    CHECK(scene.get(handed));
}

TEST_CASE("a server that can't prove who it is is given up") {
    WebScene scene;
    scene.server.on("/", ok("x"));
    auto& all = certificates();
    scene.web = net::make_web({.tls = net::make_web_tls().value(), .allow_private_addresses = true});
    const auto unknown = scene.failure(scene.server.url("/"));
    CHECK(unknown.error.code == base::Errc::source_unavailable);
    CHECK(unknown.permanent);
    CHECK_THAT(unknown.error.detail,
               Catch::Contains("https://localhost:") && Catch::Contains("certificate verification"));

    scene.web =
        net::make_web({.tls = net::make_web_tls(all.folder.path("ca.pem")).value(), .allow_private_addresses = true});
    CHECK(scene.answer(scene.server.url("/")).body == "x");
    CHECK_FALSE(net::make_web_tls(all.folder.path("absent.pem")));

    WebServer other{net::make_server_tls(all.files("else", all.ca.issue({.common_name = "localhost",
                                                                         .alternative_names = "DNS:else.example"})))
                        .value()};
    const auto misnamed = scene.failure(other.url("/"));
    CHECK(misnamed.error.code == base::Errc::source_unavailable);
    CHECK(misnamed.permanent);
    CHECK_THAT(misnamed.error.detail, Catch::Contains("hostname mismatch"));
}

TEST_CASE("what is no https:// URL is not asked for") {
    WebScene scene;
    for (const auto* url : {"", "http://localhost/s3cret?s3cret", "https://u:s3cret@localhost/", "/x"}) {
        const auto failure = scene.get(url);
        REQUIRE_FALSE(failure);
        CHECK(failure.error().error.code == base::Errc::validation_failed);
        CHECK(failure.error().permanent);
    }
}

TEST_CASE("who can't be reached may be tried again") {
    WebScene scene;
    const auto refused = scene.failure("https://127.0.0.1:1/a?s3cret");
    CHECK(refused.error.code == base::Errc::source_unavailable);
    CHECK_FALSE(refused.permanent);
    CHECK(refused.error.detail == "cannot connect to https://127.0.0.1:1: Connection refused");
}

TEST_CASE("addresses that aren't public are refused, at first and after a redirect") {
    WebScene scene;
    scene.server.on("/", ok("x"));
    scene.web = WebScene::client(false);
    const auto literal = scene.failure(scene.server.url("/", "127.0.0.1"));
    CHECK(literal.permanent);
    CHECK(literal.error.code == base::Errc::address_not_allowed);
    CHECK_THAT(literal.error.detail, Catch::Contains("127.0.0.1 is not a public address"));
    const auto named = scene.failure(scene.server.url("/"));
    CHECK(named.permanent);
    CHECK(named.error.code == base::Errc::address_not_allowed);
    CHECK_THAT(named.error.detail,
               Catch::Contains("localhost resolves to ") && Catch::Contains("not a public address"));

    const ProxyServer proxy{scene.server.port()};
    scene.web = WebScene::client(false, except(through(proxy.port()), "127.0.0.1"));
    const std::string first = "https://images.example/";
    for (const std::string host : {"127.0.0.1", "10.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "127.1", "2130706433",
                                   "0x7f.0.0.1", "a.localhost", "localhost", "localhost."}) {
        CAPTURE(host);
        scene.server.on("/", redirect(302, "https://" + host + "/inside?s3cret"));
        const auto inside = scene.failure(first);
        CHECK(inside.permanent);
        CHECK(inside.error.code == base::Errc::address_not_allowed);
    }
    for (const auto& asked : proxy.requests()) CHECK_THAT(asked, Catch::StartsWith("CONNECT images.example:443 "));
}

TEST_CASE("a name is judged by what it stands for here, also before a proxy") {
    WebScene scene;
    scene.web = WebScene::client(false);
    const auto direct = scene.failure("https://inside.example/");
    CHECK(direct.permanent);
    CHECK_THAT(direct.error.detail, Catch::Contains("inside.example resolves to 10.1.2.3"));

    const ProxyServer proxy{scene.server.port()};
    scene.web = WebScene::client(false, through(proxy.port()));
    const auto inside = scene.failure("https://inside.example/");
    CHECK(inside.permanent);
    CHECK(inside.error.code == base::Errc::address_not_allowed);
    CHECK(proxy.requests().empty());
    // One of them will do, and the proxy may know what nobody here does.
    scene.server.on("/", ok("x"));
    CHECK_THAT(scene.failure("https://both.example/").error.detail, Catch::Contains("hostname mismatch"));
    CHECK(scene.answer("https://images.example/").body == "x");
}

TEST_CASE("a proxy leads to a host that it resolves") {
    WebScene scene;
    scene.server.on("/a?s3cret", ok("x"));
    const ProxyServer proxy{scene.server.port()};
    scene.web = WebScene::client(false, through(proxy.port(), "user:pass"));
    const auto answer = scene.answer("https://images.example/a?s3cret");
    CHECK(answer.body == "x");
    CHECK_THAT(scene.server.requests().front(), Catch::Contains("Host: images.example\r\n"));
    const auto asked = proxy.requests();
    REQUIRE(asked.size() == 1);
    CHECK_THAT(asked.front(), Catch::StartsWith("CONNECT images.example:443 HTTP/1.1\r\nHost: images.example:443\r\n"));
    CHECK_THAT(asked.front(), Catch::Contains("\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n"));

    const auto misnamed = scene.failure("https://other.example/");
    CHECK(misnamed.permanent);

    scene.web = WebScene::client(true, except(through(1), "localhost"));
    CHECK(scene.answer(scene.server.url("/a?s3cret")).body == "x");
}

TEST_CASE("a proxy that opens no way is named, with what it said and without its password") {
    WebScene scene;
    for (const auto& [said, why] :
         {std::pair<std::string, const char*>{"HTTP/1.1 407 Proxy Authentication Required\r\n"
                                              "Content-Length: 2\r\n\r\nno",
                                              ": 407 Proxy Authentication Required"},
          {"HTTP/1.1 503 \x1B[1m\r\n\r\n", ": "},
          {"HTTP/1.1 100 Continue\r\n\r\n", ": 100 Continue"},
          {"", "it closed the connection"},
          {"HTTP/1.1 2", "it closed the connection"},
          {"SSH-2.0-OpenSSH\r\n\r\n", "no well-formed HTTP response"},
          {"HTTP/1.1 200 OK\r\nX: " + std::string(20'000, 'x'), "no well-formed HTTP response"},
          {"HTTP/1.1 200 OK\r\n\r\nhello", "it spoke before it was spoken to"}}) {
        CAPTURE(said);
        const ProxyServer proxy{scene.server.port(), said};
        scene.web = WebScene::client(false, through(proxy.port(), "user:s3cret"));
        const auto failure = scene.failure("https://images.example/?s3cret");
        CHECK(failure.error.code == base::Errc::source_unavailable);
        CHECK(failure.permanent == Catch::Contains(": 407").match(failure.error.detail));
        CHECK_THAT(failure.error.detail, Catch::Contains(why));
        CHECK_THAT(failure.error.detail,
                   Catch::StartsWith("the proxy http://127.0.0.1:" + std::to_string(proxy.port()) +
                                     " opened no way to images.example:443"));
    }
    scene.web = WebScene::client(false, through(1, "user:s3cret"));
    const auto refused = scene.failure("https://images.example/");
    CHECK(refused.error.code == base::Errc::source_unavailable);
    CHECK(refused.error.detail == "cannot connect to the proxy http://127.0.0.1:1: Connection refused");
}
