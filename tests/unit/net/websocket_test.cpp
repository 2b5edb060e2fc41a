#include "net/websocket.hpp"

#include <catch2/catch.hpp>

using namespace ghost;

namespace {

net::Request wish() {
    net::Request request;
    request.headers.add("Host", "a");
    request.headers.add("Upgrade", "websocket");
    request.headers.add("Connection", "keep-alive");
    request.headers.add("Connection", "x, upgrade");
    request.headers.add("Sec-WebSocket-Version", "13");
    request.headers.add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    return request;
}

boost::asio::awaitable<void> serve(net::WebSocket&) { co_return; }

}  // namespace

TEST_CASE("a request asks for a WebSocket, or not, or wrongly, and the fault says how") {
    CHECK(net::asks_for_websocket(wish()));
    auto mixed = wish();
    mixed.headers.set("Upgrade", "h2c, WebSocket");
    CHECK(net::asks_for_websocket(mixed));

    const auto fault = [](net::Request request) { return net::asks_for_websocket(request).error(); };
    auto plain = wish();
    plain.headers.set("Upgrade", "h2c");
    CHECK(fault(plain).code == base::Errc::upgrade_required);
    CHECK(fault(net::Request{}).code == base::Errc::upgrade_required);
    for (const auto method : {net::Method::head, net::Method::post, net::Method::options}) {
        auto other = wish();
        other.method = method;
        CHECK(fault(other).code == base::Errc::upgrade_required);
    }

    const auto with = [&](std::string_view header, const std::string& value) {
        auto request = wish();
        request.headers.set(header, value);
        const auto found = fault(request);
        CHECK(found.code == base::Errc::validation_failed);
        return found.detail;
    };
    CHECK_THAT(with("Connection", "keep-alive"), Catch::Contains("Connection: Upgrade"));
    CHECK_THAT(with("Sec-WebSocket-Version", "8"), Catch::Contains("Sec-WebSocket-Version: 13"));
    for (const std::string key : {"", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZ===",
                                  "dGhlIHNhbXBsZSBub25j!Q==", "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ=="})
        CHECK_THAT(with("Sec-WebSocket-Key", key), Catch::Contains("Sec-WebSocket-Key"));
}

TEST_CASE("of the subprotocols that are offered the first of ours is agreed on") {
    const auto agreed = [](std::vector<std::string> offered) {
        auto request = wish();
        for (auto& each : offered) request.headers.add("Sec-WebSocket-Protocol", std::move(each));
        return net::websocket_reply(request, {"b.v2", "a.v1"}, serve).upgrade->protocol;
    };
    CHECK(agreed({}).empty());
    CHECK(agreed({"c"}).empty());
    CHECK(agreed({"A.V1"}).empty());  // their case counts
    CHECK(agreed({"a.v1"}) == "a.v1");
    CHECK(agreed({"a.v1, \tb.v2 ,c"}) == "b.v2");
    CHECK(agreed({"c", "b.v2"}) == "b.v2");
    CHECK(net::websocket_reply(wish(), {}, serve).upgrade->protocol.empty());
}

TEST_CASE("the answer that makes a WebSocket has the key, and counts it as its principal's") {
    auto request = wish();
    request.context.who = {base::Principal::Kind::certificate, "alice", true};
    const auto reply = net::websocket_reply(request, {}, serve);
    CHECK(reply.status == 101);
    CHECK(reply.body.empty());
    REQUIRE(reply.upgrade);
    CHECK(reply.upgrade->key == "dGhlIHNhbXBsZSBub25jZQ==");
    CHECK(reply.upgrade->identity == request.context.who.text());
    CHECK(reply.upgrade->serve);
}
