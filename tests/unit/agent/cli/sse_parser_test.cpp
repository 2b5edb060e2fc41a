#include "agent/cli/sse_parser.hpp"

#include <catch2/catch.hpp>

using namespace ghost::cli;

namespace {

using Events = std::vector<ServerSentEvent>;

// What comes of `text` when it arrives `size` bytes at a time.
Events read(std::string_view text, std::size_t size) {
    SseParser parser;
    Events all;
    for (; !text.empty(); text.remove_prefix(std::min(size, text.size())))
        for (auto& event : parser.feed(text.substr(0, size))) all.push_back(std::move(event));
    return all;
}

std::string one(std::string_view text) {
    const auto events = read(text, text.size());
    return events.size() == 1 ? events.front().id + "|" + events.front().type + "|" + events.front().data
                              : std::to_string(events.size()) + " events";
}

}  // namespace

TEST_CASE("events are read however their text is cut into pieces") {
    constexpr std::string_view text =
        ": Ghost Agent's events\nretry: 1000\n\nid: 7\nevent: vm.power\ndata: {\"a\":1}\n\n: ping\n\n"
        "id: 8\r\nevent: vm.deleted\r\ndata: {}\r\n\r\ndata: x\r\rid: 9\n\n";
    for (const std::size_t size : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{7}, text.size()}) {
        CAPTURE(size);
        const auto events = read(text, size);
        REQUIRE(events.size() == 3);
        CHECK(events[0].id == "7");
        CHECK(events[0].type == "vm.power");
        CHECK(events[0].data == R"({"a":1})");
        CHECK(events[1].id == "8");
        CHECK(events[1].type == "vm.deleted");
        CHECK(events[1].data == "{}");
        CHECK(events[2].id == "8");  // the last one that was sent
        CHECK(events[2].type == "message");
        CHECK(events[2].data == "x");
    }
}

TEST_CASE("lines of data are put together, and a field is read as the standard says") {
    CHECK(one("data: a\ndata: b\ndata:\ndata:  c\n\n") == "|message|a\nb\n\n c");
    CHECK(one("data\n\n") == "|message|");
    CHECK(one("data:a:b\n\n") == "|message|a:b");
    CHECK(one("event: x\nevent: y\ndata: z\nunknown: 1\nDATA: no\n\n") == "|y|z");
    CHECK(one("\xef\xbb\xbf"
              "data: z\n\n") == "|message|z");
    CHECK(one(std::string_view{"id: 1\nid: 2\0\ndata: z\n\n", 22}) == "1|message|z");
    CHECK(one("id: 1\nid\ndata: z\n\n") == "|message|z");
}

TEST_CASE("what isn't complete is no event") {
    CHECK(one("data: a\n") == "0 events");
    CHECK(one("data: a") == "0 events");
    CHECK(one("event: x\nid: 4\n\n") == "0 events");
    CHECK(one("event: x\n\ndata: z\n\n") == "|message|z");
    CHECK(one(":\n\n: ping\n\n") == "0 events");
}

TEST_CASE("an event without an end doesn't take all memory") {
    const std::string much(SseParser::largest_event / 2 + 1, 'x');
    SseParser line;
    CHECK(line.feed("data: " + much).empty());
    CHECK_FALSE(line.overflowed());
    CHECK(line.feed(much).empty());
    CHECK(line.overflowed());
    CHECK(line.feed("\n\ndata: a\n\n").empty());
    SseParser lines;
    CHECK(lines.feed("data: " + much + "\ndata: " + much + "\ndata: a\n").empty());
    CHECK(lines.overflowed());
}
