#include "heartbeat/json_fields.hpp"

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using namespace ghost;
using heartbeat::wall_from_rfc3339;

TEST_CASE("times are read as they are written", "[heartbeat]") {
    const auto noon = base::from_unix_ms(1'767'355'200'000);
    CHECK(wall_from_rfc3339("2026-01-02T12:00:00Z") == noon);
    CHECK(wall_from_rfc3339("2026-01-02t12:00:00z") == noon);
    CHECK(wall_from_rfc3339("2026-01-02T12:00:00.250Z") == noon + 250ms);
    CHECK(wall_from_rfc3339("2026-01-02T12:00:00.123456789Z") == noon + 123ms);
    CHECK(wall_from_rfc3339("2026-01-02T14:00:00+02:00") == noon);
    CHECK(wall_from_rfc3339("2026-01-02T06:30:00-05:30") == noon);
    CHECK(wall_from_rfc3339(base::rfc3339_ms(noon + 1ms)) == noon + 1ms);
}

TEST_CASE("what Core says fits on a line", "[heartbeat]") {
    using heartbeat::one_line;
    CHECK(one_line("token used") == "token used");
    CHECK(one_line("a\r\nb\x1b[2Jc\x7f") == "a  b [2Jc ");
    CHECK(one_line("\xff") == "");
    CHECK(one_line("abcdef", 3) == "abc");
    CHECK(one_line("ab\xc3\xa4", 3) == "ab");
}

TEST_CASE("what is no time isn't read as one", "[heartbeat]") {
    const auto* bad =
        GENERATE("", "soon", "2026-01-02", "2026-01-02T12:00:00", "2026-13-02T12:00:00Z", "2026-02-30T12:00:00Z",
                 "2026-01-02T24:00:00Z", "2026-01-02T12:60:00Z", "2026-01-02T12:00:00.Z", "2026-01-02T12:00:00+2:00",
                 "2026-01-02T12:00:00Zx", "26-01-02T12:00:00Z", "2026-01-02T12:00:00+25:00");
    INFO(bad);
    CHECK_FALSE(wall_from_rfc3339(bad));
}
