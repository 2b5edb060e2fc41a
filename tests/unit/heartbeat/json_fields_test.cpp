#include "heartbeat/json_fields.hpp"

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using namespace ghost;

TEST_CASE("what Core says fits on a line", "[heartbeat]") {
    using heartbeat::one_line;
    CHECK(one_line("token used") == "token used");
    CHECK(one_line("a\r\nb\x1b[2Jc\x7f") == "a  b [2Jc ");
    CHECK(one_line("\xff") == "");
    CHECK(one_line("abcdef", 3) == "abc");
    CHECK(one_line("ab\xc3\xa4", 3) == "ab");
}
