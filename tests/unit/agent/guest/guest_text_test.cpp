#include "agent/guest/guest_text.hpp"

#include "net/text.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::agent;

TEST_CASE("what is no UTF-8 becomes the replacement character, one for each fault") {
    const auto [bytes, text] = GENERATE(table<std::string, std::string>({
        {"plain \xC3\xA4 \xE2\x82\xAC \xF0\x9F\x91\xBB", "plain \xC3\xA4 \xE2\x82\xAC \xF0\x9F\x91\xBB"},
        {"a\xFFz", "a\xEF\xBF\xBDz"},
        {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},                                    // overlong
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},                    // a surrogate
        {"\xF4\x90\x80\x80z", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz"},  // above U+10FFFF
        {"\xE2\x82z", "\xEF\xBF\xBDz"},
        {"z\xE2\x82", "z\xEF\xBF\xBD"},
        {std::string{"a\0b", 3}, std::string{"a\0b", 3}},
    }));
    const auto read = readable_text(bytes, 1000);
    CHECK(read.text == text);
    CHECK_FALSE(read.cut);
    CHECK(net::is_utf8(read.text));
}

TEST_CASE("a text is cut between characters") {
    CHECK(readable_text("abc", 2).text == "ab");
    CHECK(readable_text("abc", 2).cut);
    CHECK_FALSE(readable_text("abc", 3).cut);
    CHECK(readable_text("a\xE2\x82\xAC", 3).text == "a");
    // What was cut before has no fault at its end.
    CHECK(readable_text("z\xE2\x82", 10, true).text == "z");
    CHECK(readable_text("z\xE2\x82", 10, true).cut);
    CHECK(shortened("abcdef", 6) == "abcdef");
    CHECK(shortened("abcdefg", 6) == "abc...");
    CHECK(shortened("ab\xE2\x82\xAC"
                    "defg",
                    6) == "ab...");
}

TEST_CASE("a command is told as a shell would be told it") {
    CHECK(command_line({"ls", "-l", "/a b", "", "it's"}, 100) == R"(ls -l '/a b' '' 'it'\''s')");
    CHECK(command_line({"echo", "$HOME;x"}, 100) == "echo '$HOME;x'");
    CHECK(command_line({std::string(5000, 'x'), "y"}, 100).size() == 100);
    CHECK(command_line(std::vector<std::string>(256, std::string(5000, '\'')), 1024).size() <= 1024);
}

TEST_CASE("a guest's refusal is told by what its words mean") {
    const auto code = [](std::string words, base::Errc before = base::Errc::state_conflict) {
        return refusal_of_guest({before, std::move(words)}).code;
    };
    CHECK(code("failed to open file '/x': No such file or directory") == base::Errc::not_found);
    CHECK(code("failed to read file: Is a directory") == base::Errc::not_found);
    CHECK(code("Permission denied") == base::Errc::forbidden);
    CHECK(code("No space left on device") == base::Errc::insufficient_storage);
    CHECK(code("something else") == base::Errc::state_conflict);
    CHECK(code("No such file", base::Errc::deadline_exceeded) == base::Errc::deadline_exceeded);
}
