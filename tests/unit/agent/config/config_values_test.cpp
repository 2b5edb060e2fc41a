#include "agent/config/config_values.hpp"

#include <catch2/catch.hpp>

using namespace ghost::agent;
using namespace std::chrono_literals;

TEST_CASE("durations are numbers with units, also one after another") {
    CHECK(parse_duration("30s", 0s) == 30s);
    CHECK(parse_duration("5m", 0s) == 5min);
    CHECK(parse_duration("500ms", 0s) == 500ms);
    CHECK(parse_duration("1h30m", 0s) == 90min);
    CHECK(parse_duration("1.5h", 0s) == 90min);
    CHECK(parse_duration("28d", 0s) == 24h * 28);
    CHECK(parse_duration("2w", 0s) == 24h * 14);
    CHECK(parse_duration("0", 0s) == 0ms);
}

TEST_CASE("a duration without a unit counts in the key's own, or not at all") {
    CHECK(parse_duration("28", 24h) == 24h * 28);
    CHECK(parse_duration("7", 1s) == 7s);
    CHECK_FALSE(parse_duration("7", 0s));
    for (const auto* bad : {"", "s", "5 m", "-5s", "5s ", " 5s", "5x", "5S", "5s3", "1e3s", "inf", "nan", "5m-3s",
                            "99999999999999999999w", "0x10s"}) {
        CAPTURE(bad);
        CHECK_FALSE(parse_duration(bad, 0s));
    }
    CHECK_FALSE(parse_duration("-5", 1s));
    CHECK_FALSE(parse_duration("1e99", 24h));
}

TEST_CASE("sizes count in powers of 1000 or, with an i or one letter, of 1024") {
    CHECK(parse_size("512", 1) == 512);
    CHECK(parse_size("512B", 0) == 512);
    CHECK(parse_size("100MB", 0) == 100'000'000);
    CHECK(parse_size("100 MB", 0) == 100'000'000);
    CHECK(parse_size("10GiB", 0) == 10ULL << 30);
    CHECK(parse_size("10G", 0) == 10ULL << 30);
    CHECK(parse_size("10gib", 0) == 10ULL << 30);
    CHECK(parse_size("1.5TiB", 0) == 3ULL << 39);
    CHECK(parse_size("100", 1 << 20) == 100ULL << 20);
    CHECK(parse_size("0", 0) == 0);
}

TEST_CASE("what is no size is refused") {
    for (const auto* bad :
         {"", "MB", "-1MB", "10XB", "10MBs", "1e3MB", "10", "99999999999TiB", "10 MB ", "inf", "0x10MB"}) {
        CAPTURE(bad);
        CHECK_FALSE(parse_size(bad, 0));
    }
}

TEST_CASE("numbers are plain decimals") {
    CHECK(parse_number("0") == 0.0);
    CHECK(parse_number("2.5") == 2.5);
    CHECK(parse_number("-1") == -1.0);
    for (const auto* bad : {"", "-", "two", "1 ", " 1", "1,5", "+1", "inf", "nan", "-inf", "0x10", "1e5", "--1"}) {
        CAPTURE(bad);
        CHECK_FALSE(parse_number(bad));
    }
    CHECK(parse_whole("18446744073709551615") == 18446744073709551615ULL);
    for (const auto* bad : {"", "-1", "1.0", "18446744073709551616", "1 ", "+1"}) {
        CAPTURE(bad);
        CHECK_FALSE(parse_whole(bad));
    }
}

TEST_CASE("flags are YAML's words in any case") {
    for (const auto* yes : {"true", "True", "YES", "on"}) CHECK(parse_flag(yes) == true);
    for (const auto* no : {"false", "False", "NO", "off"}) CHECK(parse_flag(no) == false);
    for (const auto* bad : {"", "1", "0", "y", "t", "enabled"}) CHECK_FALSE(parse_flag(bad));
}

TEST_CASE("listen addresses are numeric") {
    const auto v4 = parse_listen_address("127.0.0.1:9092");
    REQUIRE(v4);
    CHECK(v4->port() == 9092);
    CHECK(v4->address().is_loopback());
    const auto v6 = parse_listen_address("[::1]:80");
    REQUIRE(v6);
    CHECK(v6->address().is_v6());
    CHECK(parse_listen_address("0.0.0.0:1"));
    CHECK(parse_listen_address("[fe80::1]:65535"));
    CHECK(parse_listen_address("127.0.0.1:0"));
    for (const auto* bad : {"",
                            ":",
                            ":9092",
                            "9092",
                            "127.0.0.1",
                            "127.0.0.1:",
                            "127.0.0.1:65536",
                            "127.0.0.1:x",
                            "127.0.0.1:-1",
                            "localhost:9092",
                            "::1:9092",
                            "[127.0.0.1]:80",
                            "[]:80",
                            "[::1]",
                            "[::1]80",
                            "127.0.0.1:80 ",
                            "127.1:80",
                            "256.0.0.1:80",
                            "http://127.0.0.1:80",
                            "tailscale:9092"}) {
        CAPTURE(bad);
        CHECK_FALSE(parse_listen_address(bad));
    }
}
