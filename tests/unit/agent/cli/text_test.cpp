#include "agent/cli/text.hpp"

#include "agent/cli/table.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::cli;
using namespace std::chrono_literals;

TEST_CASE("nothing that drives a terminal gets through") {
    CHECK(printable("web-1 größe 日本") == "web-1 größe 日本");
    CHECK(printable("\x1b[2J\a\n\t\x7f") == "\\x1b[2J\\x07\\n\\t\\x7f");
    CHECK(printable("a\xc2\x9b"
                    "b") == "a\\x9bb");  // CSI of C1
    CHECK(printable("a\xe2\x80\xae"
                    "b") == "a\\u202eb");                                       // right-to-left override
    CHECK(printable("\xff\xc3") == "\\xff\\xc3");                               // not UTF-8
    CHECK(printable("\xc0\xaf \xed\xa0\x80") == "\\xc0\\xaf \\xed\\xa0\\x80");  // overlong, surrogate
    CHECK(printable(std::string_view{"a\0b", 3}) == "a\\x00b");
}

TEST_CASE("JSON keeps its layout and loses its bare control characters") {
    CHECK(printable_json("{\n  \"a\": \"\x7f\xc2\x9b\xe2\x80\xae\"\n}") == "{\n  \"a\": \"\\u007f\\u009b\\u202e\"\n}");
}

TEST_CASE("columns count what a terminal shows") {
    CHECK(columns_of("abc") == 3);
    CHECK(columns_of("größe") == 5);
    CHECK(columns_of("e\xcc\x81") == 1);  // combining accent
    CHECK(columns_of("日本") == 4);
    CHECK(fitting("日本語", 5) == "日本");
    CHECK(fitting("abc", 5) == "abc");
    CHECK(fitting("abc", 0).empty());
}

TEST_CASE("tables align and show what is missing") {
    Table table{{"NAME", "N"}};
    table.add({"größe", "1"});
    table.add({"", "22"});
    table.add({"evil\x1b[1m", ""});
    CHECK(table.text() ==
          "NAME         N\n"
          "größe        1\n"
          "-            22\n"
          "evil\\x1b[1m  -\n");
}

TEST_CASE("durations are read as people write them") {
    CHECK(parse_duration("90") == 90s);
    CHECK(parse_duration("90s") == 90s);
    CHECK(parse_duration("5m") == 5min);
    CHECK(parse_duration("1h30m") == 90min);
    CHECK(parse_duration("7d") == 168h);
    for (const auto* bad :
         {"", "0", "0s", "-1", "5x", "m", "1h30", "1m1h", "1m1m", "8d", "99999999999999999999", "1.5h", " 5m"}) {
        CAPTURE(bad);
        CHECK_FALSE(parse_duration(bad));
    }
}

TEST_CASE("sizes are read in GiB unless they say otherwise") {
    CHECK(parse_mib("4") == 4096U);
    CHECK(parse_mib("0.5") == 512U);
    CHECK(parse_mib("512M") == 512U);
    CHECK(parse_mib("4GiB") == 4096U);
    CHECK(parse_mib("1T") == 1048576U);
    CHECK(parse_gib("50") == 50U);
    CHECK(parse_gib("2048M") == 2U);
    for (const auto* bad : {"", "0", "-4", "4.", ".5", "4K", "4 G", "0.3", "1.5M", "1e3", "nan", "9999999999"}) {
        CAPTURE(bad);
        CHECK_FALSE(parse_mib(bad));
    }
    CHECK_FALSE(parse_gib("0.5"));
}

TEST_CASE("times of RFC 3339 are read, others are not") {
    CHECK(parse_time("2026-01-02T03:04:05Z") == base::from_unix_ms(1'767'323'045'000));
    CHECK(parse_time("2026-01-02T03:04:05.678Z") == base::from_unix_ms(1'767'323'045'000));
    CHECK(parse_time("2026-01-02T05:04:05+02:00") == base::from_unix_ms(1'767'323'045'000));
    for (const auto* bad :
         {"", "2026-01-02", "2026-13-02T03:04:05Z", "2026-02-30T03:04:05Z", "2026-01-02T25:04:05Z",
          "2026-01-02T03:04:05", "2026-01-02T03:04:05+2", "2026-01-02 03:04:05Z", "xxxx-01-02T03:04:05Z"}) {
        CAPTURE(bad);
        CHECK_FALSE(parse_time(bad));
    }
}

TEST_CASE("quantities are written for people") {
    CHECK(human_bytes(0) == "0 B");
    CHECK(human_bytes(1536) == "1.5 KiB");
    CHECK(human_bytes(1073741824.0 * 20) == "20 GiB");
    CHECK(human_mib(512) == "512 MiB");
    CHECK(human_mib(1536) == "1.5 GiB");
    CHECK(human_number(25.5) == "25.5");
    CHECK(human_number(2) == "2");
    CHECK(human_span(45s) == "45s");
    CHECK(human_span(185s) == "3m");
    CHECK(human_span(2h) == "2h");
    CHECK(human_span(125min) == "2h 5m");
    CHECK(human_span(100h) == "4d");
    CHECK(human_span(-5s) == "0s");
    CHECK(human_seconds(3600.4) == "1h");
    CHECK(human_seconds(-1e300) == "0s");
    CHECK(human_seconds(1e300) == "11574074d");
    const auto now = base::from_unix_ms(1'767'323'045'000);
    CHECK(age("2026-01-02T03:03:05Z", now) == "1m");
    CHECK(age("2030-01-01T00:00:00Z", now) == "0s");  // clocks differ
    CHECK(age("some\nday", now) == "some\\nday");
}
