#include "base/log.hpp"

#include "tests/unit/base/recording_sink.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace ghost::base;
using ghost::test::Recorded;
using ghost::test::recording_log;

namespace {

Record record(std::string message, Fields fields = {}) {
    return {from_unix_ms(1'767'323'045'678), Level::info, std::move(message), std::move(fields)};
}
std::string text(std::string message, Fields fields = {}) {
    return format_record(record(std::move(message), std::move(fields)), LogFormat::text);
}
boost::json::object json(std::string message, Fields fields = {}) {
    return boost::json::parse(format_record(record(std::move(message), std::move(fields)), LogFormat::json))
        .as_object();
}
const std::string stamp = "2026-01-02T03:04:05.678Z INFO ";

}  // namespace

TEST_CASE("a text line has time, level, message and fields") {
    CHECK(text("vm started", {{"vm", "web-1"}, {"vcpus", 2}, {"kvm", false}}) ==
          stamp + "vm started vm=web-1 vcpus=2 kvm=false");
}

TEST_CASE("a value that could be mistaken for something else is quoted") {
    CHECK(text("m", {{"a", "two words"}}) == stamp + R"(m a="two words")");
    CHECK(text("m", {{"a", ""}}) == stamp + R"(m a="")");
    CHECK(text("m", {{"a", R"(say "hi" \)"}}) == stamp + R"(m a="say \"hi\" \\")");
    CHECK(text("m", {{"a", "b=c"}}) == stamp + R"(m a="b=c")");
}

TEST_CASE("neither message nor field can break or forge a line") {
    CHECK(text("x\n2026-01-02T03:04:06.000Z INFO forged") == stamp + R"("x\n2026-01-02T03:04:06.000Z INFO forged")");
    CHECK(text("login user=root") == stamp + R"("login user=root")");
    CHECK(text("m", {{"a", "1 b=2"}}) == stamp + R"(m a="1 b=2")");
    CHECK(text("m", {{"a\n b=2 c", "v"}}) == stamp + "m a__b_2_c=v");
}

TEST_CASE("what steers a terminal or turns the reading direction around is escaped") {
    CHECK(text("m", {{"a", "\x1b[2J"}}) == stamp + R"(m a="\u001b[2J")");
    CHECK(text("m", {{"a", "\x7f\b\r\t"}}) == stamp + R"(m a="\u007f\u0008\r\t")");
    CHECK(text("m", {{"a", "\xc2\x9b"}}) == stamp + R"(m a="\u009b")");
    CHECK(text("m", {{"a", "\xe2\x80\xae"}}) == stamp + R"(m a="\u202e")");
    CHECK(text("m", {{"a", "\xe2\x80\xa8"}}) == stamp + R"(m a="\u2028")");
    CHECK(text("m", {{"a", std::string(1, '\0')}}) == stamp + R"(m a="\u0000")");
}

TEST_CASE("honest text beyond ASCII stays readable, broken UTF-8 shows its bytes") {
    CHECK(text("m", {{"a", "Grüße 🙂"}}) == stamp + R"(m a="Grüße 🙂")");
    CHECK(text("m", {{"a", "\xff\xc3"}}) == stamp + R"(m a="\xff\xc3")");
    CHECK(text("m", {{"a", "\xc0\xaf"}}) == stamp + R"(m a="\xc0\xaf")");          // overlong
    CHECK(text("m", {{"a", "\xed\xa0\x80"}}) == stamp + R"(m a="\xed\xa0\x80")");  // surrogate
    CHECK(text("m", {{"a", "\xf5\x80\x80\x80"}}) == stamp + R"(m a="\xf5\x80\x80\x80")");
}

TEST_CASE("a JSON line parses, with numbers and booleans as such") {
    const auto line = json("vm started", {{"vm", "web-1"}, {"vcpus", 2}, {"kvm", true}, {"delta", -3}});
    CHECK(line.at("time") == "2026-01-02T03:04:05.678Z");
    CHECK(line.at("level") == "info");
    CHECK(line.at("message") == "vm started");
    CHECK(line.at("vm") == "web-1");
    CHECK(line.at("vcpus") == 2);
    CHECK(line.at("kvm") == true);
    CHECK(line.at("delta") == -3);
}

TEST_CASE("a JSON line stays one valid line whatever it holds") {
    std::string every_byte;
    for (int i = 0; i < 256; ++i) every_byte += static_cast<char>(i);
    const auto line = format_record(record(every_byte, {{every_byte, every_byte}}), LogFormat::json);
    CHECK(std::ranges::none_of(line, [](char c) { return static_cast<unsigned char>(c) < 0x20; }));
    boost::system::error_code ec;
    static_cast<void>(boost::json::parse(line, ec));
    CHECK_FALSE(ec);
    CHECK(json("a\n\"b\"\\\x1b").at("message") == "a\n\"b\"\\\x1b");
}

TEST_CASE("a field can't stand in for a line's own members") {
    const auto line = json("real", {{"message", "forged"}, {"level", "error"}, {"time", "never"}});
    CHECK(line.at("message") == "real");
    CHECK(line.at("level") == "info");
    CHECK(line.at("message_") == "forged");
    CHECK(line.at("time_") == "never");
}

TEST_CASE("records below the level are not written, and the level can change") {
    Recorded recorded;
    auto log = recording_log(recorded, Level::warn);
    log.info("quiet");
    log.warn("loud");
    log.set_level(Level::debug);
    log.debug("now heard");
    log.flush();
    CHECK(recorded.messages() == std::vector<std::string>{"loud", "now heard"});
}

TEST_CASE("records of many threads all arrive, those of one in order") {
    Recorded recorded;
    {
        auto log = recording_log(recorded);
        std::vector<std::jthread> threads;
        threads.reserve(4);
        for (int t = 0; t < 4; ++t)
            threads.emplace_back([&log, t] {
                for (int i = 0; i < 200; ++i) log.info(std::to_string(t), {{"i", i}});
            });
    }
    const auto records = recorded.records();
    CHECK(records.size() == 800);
    for (int t = 0; t < 4; ++t) {
        int next = 0;
        for (const auto& each : records)
            if (each.message == std::to_string(t)) CHECK(each.fields.at(0).value == std::to_string(next++));
        CHECK(next == 200);
    }
}

TEST_CASE("when the writer is held up a full queue drops and counts, and the log says how many") {
    Recorded recorded;
    auto log = recording_log(recorded);
    recorded.hold();
    log.info("first");
    recorded.wait_until_stuck();
    for (std::size_t i = 0; i < Log::queue_limit + 10; ++i) log.info("more");
    CHECK(log.dropped() == 10);
    recorded.release();
    log.flush(std::chrono::seconds{60});
    const auto records = recorded.records();
    CHECK(records.size() == 1 + Log::queue_limit + 1);
    CHECK(message_with_fields(records.back()) == "log records dropped: the queue was full dropped=10 dropped_total=10");
    log.info("after");
    log.flush();
    CHECK(recorded.messages().back() == "after");
    CHECK(log.dropped() == 10);
}

TEST_CASE("a flush gives up at its limit when the writer is stuck") {
    Recorded recorded;
    auto log = recording_log(recorded);
    recorded.hold();
    log.info("stuck");
    recorded.wait_until_stuck();
    log.flush(std::chrono::milliseconds{10});
    CHECK(recorded.messages().empty());
    recorded.release();
}

TEST_CASE("an enormous message or value is cut before it is queued") {
    Recorded recorded;
    auto log = recording_log(recorded);
    log.info(std::string(1'000'000, 'm'), {{"v", std::string(1'000'000, 'v')}});
    log.flush();
    const auto records = recorded.records();
    REQUIRE(records.size() == 1);
    CHECK(records[0].message.size() < 20'000);
    CHECK(records[0].fields[0].value.size() < 20'000);
    CHECK(records[0].message.ends_with("m..."));
}

TEST_CASE("a sink that throws takes no other sink's records away") {
    struct Throwing final : LogSink {
        void write(const Record& /*record*/) override { throw std::runtime_error{"broken"}; }
        void flush() override { throw std::runtime_error{"broken"}; }
    };
    Recorded recorded;
    std::vector<std::unique_ptr<LogSink>> sinks;
    sinks.push_back(std::make_unique<Throwing>());
    sinks.push_back(std::make_unique<ghost::test::RecordingSink>(recorded));
    Log log{Level::info, std::move(sinks)};
    log.info("one");
    log.info("two");
    log.flush();
    CHECK(recorded.messages() == std::vector<std::string>{"one", "two"});
}

TEST_CASE("a log without sinks takes everything and keeps nothing") {
    Log log;
    log.error("nobody hears this");
    log.flush();
    CHECK(log.dropped() == 0);
}
