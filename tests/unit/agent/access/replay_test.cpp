#include "agent/access/replay.hpp"

#include <catch2/catch.hpp>

#include <random>
#include <string>

using namespace ghost::agent;

namespace {

std::string all_of(const Replay& replay) {
    std::string text(Replay::size, '\0');
    text.resize(replay.copy(replay.begin(), text));
    return text;
}

std::string counted(std::size_t bytes) {
    std::string text;
    while (text.size() < bytes) text += std::to_string(text.size()) + "\n";
    text.resize(bytes);
    return text;
}

}  // namespace

TEST_CASE("a replay gives what was added, from any place on") {
    Replay replay;
    CHECK(replay.begin() == 0);
    CHECK(replay.end() == 0);
    CHECK(all_of(replay).empty());
    replay.add("login: ");
    replay.add("");
    replay.add("root\r\n");
    CHECK(all_of(replay) == "login: root\r\n");
    CHECK(replay.end() == 13);
    std::string room(4, '.');
    CHECK(replay.copy(7, room) == 4);
    CHECK(room == "root");
    CHECK(replay.copy(11, room) == 2);
    CHECK(room.substr(0, 2) == "\r\n");
    CHECK(replay.copy(13, room) == 0);
    CHECK(replay.copy(99, room) == 0);
}

TEST_CASE("of more than fits the last is kept, however it came") {
    const auto text = counted(5 * Replay::size + 321);
    std::mt19937 random{7};
    for (const std::size_t piece : {std::size_t{1000}, Replay::size, Replay::size + 1, 3 * Replay::size, text.size()}) {
        CAPTURE(piece);
        Replay replay;
        for (std::size_t at = 0; at < text.size();) {
            const auto length = std::min(1 + random() % piece, text.size() - at);
            replay.add(std::string_view{text}.substr(at, length));
            at += length;
            REQUIRE(replay.end() == at);
            REQUIRE(replay.begin() == at - std::min(at, Replay::size));
        }
        CHECK(all_of(replay) == text.substr(text.size() - Replay::size));
        std::string room(100, '.');
        CHECK(replay.copy(replay.end() - 100, room) == 100);
        CHECK(room == text.substr(text.size() - 100));
    }
}

TEST_CASE("a log's tail and live bytes are joined where they overlap") {
    CHECK(join_log("", "") == "");
    CHECK(join_log("tail", "") == "tail");
    CHECK(join_log("", "live") == "live");
    CHECK(join_log("boot ok\nlogin: ", "login: root") == "boot ok\nlogin: root");
    CHECK(join_log("all of it", "it") == "all of it");
    CHECK(join_log("it", "it") == "it");
    CHECK(join_log("it", "it goes on") == "it goes on");
    CHECK(join_log("nothing", "in common") == "nothingin common");  // "g" is no "in"
    CHECK(join_log("aaaa", "aaaaa") == "aaaaa");
    CHECK(join_log("xaab", "aabaa") == "xaabaa");
    CHECK(join_log("abcabcab", "abcabd") == "abcabcabd");
    CHECK(join_log("...live and after", "live") == "...live and afterlive");  // what went on isn't an end
}

TEST_CASE("joining is quick for texts that repeat, and finds what trying all lengths finds") {
    const std::string dots(64UL * 1024, '.');
    CHECK(join_log(dots, dots + "!") == dots + "!");
    CHECK(join_log(dots + "x", dots).size() == 2 * dots.size() + 1);
    std::mt19937 random{11};
    for (int round = 0; round < 2000; ++round) {
        std::string tail(random() % 12, ' ');
        std::string live(random() % 12, ' ');
        for (auto& c : tail) c = static_cast<char>('a' + random() % 2);
        for (auto& c : live) c = static_cast<char>('a' + random() % 2);
        auto length = std::min(tail.size(), live.size());
        while (tail.substr(tail.size() - length) != live.substr(0, length)) --length;
        CAPTURE(tail, live);
        REQUIRE(join_log(tail, live) == tail + live.substr(length));
    }
}
