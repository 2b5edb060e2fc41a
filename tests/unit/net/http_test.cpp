#include "net/http.hpp"

#include "net/problem.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

using namespace ghost;

TEST_CASE("headers are found whatever their case, and set replaces every one of them") {
    net::Headers headers;
    headers.add("Accept", "a");
    headers.add("X", "1");
    headers.add("ACCEPT", "b");
    CHECK(headers.find("accept") == "a");
    headers.set("aCCept", "c");
    CHECK(headers.find("Accept") == "c");
    CHECK(std::distance(headers.begin(), headers.end()) == 2);
    CHECK_FALSE(headers.find("Accep"));
}

TEST_CASE("methods have their names and others are other") {
    for (const auto method : {net::Method::get, net::Method::head, net::Method::post, net::Method::put,
                              net::Method::patch, net::Method::del, net::Method::options})
        CHECK(net::method_from_name(net::name_of(method)) == method);
    CHECK(net::method_from_name("TRACE") == net::Method::other);
    CHECK(net::method_from_name("get") == net::Method::other);
}

TEST_CASE("a target is split into its path, still encoded, and its query, decoded in order") {
    const auto target = net::parse_target("/v1/vms/a%2Fb?label=a%3Db&name=x+y&flag&&label=2%2B2#part");
    REQUIRE(target);
    CHECK(target->path == "/v1/vms/a%2Fb");
    CHECK(target->query == net::Query{{"label", "a=b"}, {"name", "x y"}, {"flag", ""}, {"label", "2+2"}});
}

TEST_CASE("absolute and asterisk targets are understood") {
    CHECK(net::parse_target("http://host:1/x?y=1")->path == "/x");
    CHECK(net::parse_target("HTTPS://host")->path == "/");
    CHECK(net::parse_target("http://host?y=1")->query == net::Query{{"y", "1"}});
    CHECK(net::parse_target("*")->path == "*");
}

TEST_CASE("malformed targets are faults") {
    for (const std::string text : {"", "x", "host:443", "http://", "http:///x", "ftp://h/x", "/%", "/%4", "/%zz",
                                   "/%00", "/?a=%", "/?%00", "/%ff", "/?a=%c0%80", "/\xff"}) {
        CAPTURE(text);
        CHECK_FALSE(net::parse_target(text));
    }
    CHECK_FALSE(net::parse_target("/" + std::string(9000, 'a')));
    std::string many = "/?";
    for (int i = 0; i < 200; ++i) many += "a=1&";
    CHECK_FALSE(net::parse_target(many));
}

TEST_CASE("percent-encoding comes back as it went") {
    std::string all;
    for (int c = 1; c < 256; ++c) all += static_cast<char>(c);
    CHECK(net::percent_decode(net::percent_encode(all)) == all);
    CHECK(net::percent_encode("a b/c~") == "a%20b%2Fc~");
    CHECK(net::percent_decode("a+b") == "a+b");
    CHECK(net::percent_decode("a+b", true) == "a b");
}

TEST_CASE("a problem is RFC 9457's document, not to be stored, with its own members") {
    const auto response =
        net::problem(409, "state_conflict", "State conflict", "it runs", "id-1", {{"state", "running"}});
    CHECK(response.status == 409);
    CHECK(response.content_type == "application/problem+json");
    CHECK(response.headers.find("Cache-Control") == "no-store");
    CHECK(boost::json::parse(response.body) == boost::json::value{{"type", "urn:ghost:problem:state_conflict"},
                                                                  {"title", "State conflict"},
                                                                  {"status", 409},
                                                                  {"detail", "it runs"},
                                                                  {"code", "state_conflict"},
                                                                  {"request_id", "id-1"},
                                                                  {"state", "running"}});
}
