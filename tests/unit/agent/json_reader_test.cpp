#include "agent/json_reader.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::agent;
namespace json = boost::json;

TEST_CASE("JSON is parsed whole or not at all") {
    CHECK(parse_json("{\"a\": [1, 2]}").has_value());
    for (const auto* text : {"", "{", "{} {}", "{}x", "{\"a\": 01}", "nul", "{\"a\": \"\xff\"}", "[1,]"}) {
        CAPTURE(text);
        const auto parsed = parse_json(text);
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().code == base::Errc::invalid_json);
        CHECK_FALSE(parsed.error().detail.empty());
    }
}

TEST_CASE("depth is bounded") {
    CHECK(parse_json(std::string(32, '[') + std::string(32, ']'), 32).has_value());
    CHECK_FALSE(parse_json(std::string(33, '[') + std::string(33, ']'), 32).has_value());
    CHECK_FALSE(parse_json(std::string(1'000'000, '['), 32).has_value());
}

TEST_CASE("a reader collects every fault with its pointer") {
    const auto document =
        parse_json(R"({"n": 1e3, "s": 5, "b": "yes", "a/b~c": 1, "list": ["x", 3], "big": 18446744073709551616})");
    REQUIRE(document);
    std::vector<base::Fault> faults;
    JsonReader reader{document->as_object(), "/top", faults};
    CHECK_FALSE(reader.integer("n", 0, 10));
    CHECK_FALSE(reader.string("s", 10));
    CHECK_FALSE(reader.boolean("b"));
    CHECK_FALSE(reader.integer("big", 0, UINT64_MAX));
    reader.strings("list", 10, 10);
    reader.require("missing");
    reader.finish();
    std::vector<std::string> pointers;
    pointers.reserve(faults.size());
    for (const auto& fault : faults) pointers.push_back(fault.pointer);
    CHECK(pointers == std::vector<std::string>{"/top/n", "/top/s", "/top/b", "/top/big", "/top/list/1", "/top/missing",
                                               "/top/a~1b~0c"});
}

TEST_CASE("numbers keep to their bounds") {
    const auto document =
        parse_json(R"({"zero": 0, "neg": -1, "max": 18446744073709551615, "half": 0.5, "edge": 9223372036854775808})");
    REQUIRE(document);
    std::vector<base::Fault> faults;
    JsonReader reader{document->as_object(), "", faults};
    CHECK(reader.integer("zero", 0, 5) == 0);
    CHECK_FALSE(reader.integer("zero", 1, 5));
    CHECK_FALSE(reader.integer("neg", 0, 5));
    CHECK(reader.integer("max", 0, UINT64_MAX) == UINT64_MAX);
    CHECK(reader.integer("edge", 0, UINT64_MAX) == 9223372036854775808ULL);
    CHECK_FALSE(reader.integer("half", 0, 5));
    CHECK(faults.size() == 3);
}

TEST_CASE("a text with a NUL is refused, and a long one") {
    const auto document = parse_json(R"({"nul": "a\u0000b", "long": "aaaaaa"})");
    REQUIRE(document);
    std::vector<base::Fault> faults;
    JsonReader reader{document->as_object(), "", faults};
    CHECK_FALSE(reader.string("nul", 10));
    CHECK_FALSE(reader.string("long", 5));
    CHECK(reader.string("long", 6) == "aaaaaa");
}
