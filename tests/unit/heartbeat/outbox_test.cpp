#include "heartbeat/outbox.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using namespace ghost;
using heartbeat::Outbox;

namespace {

const auto noon = base::from_unix_ms(1'767'355'200'000);

std::vector<std::int64_t> revs(const Outbox& outbox) {
    std::vector<std::int64_t> out;
    for (const auto& item : outbox.batch()) out.push_back(item.at("rev").to_number<std::int64_t>());
    return out;
}

std::uint64_t add(Outbox& outbox, base::Wall at = noon) {
    return outbox.add(at, "vm.created", {{"vm", boost::json::object{{"id", "x"}}}}).rev;
}

}  // namespace

TEST_CASE("facts are sent in order, once they are kept", "[heartbeat]") {
    Outbox outbox{10};
    CHECK(add(outbox) == 10);
    CHECK(add(outbox) == 11);
    CHECK_FALSE(outbox.has_news());
    outbox.release(11);
    CHECK(revs(outbox).empty());  // 10 may still come
    outbox.release(10);
    CHECK(revs(outbox) == std::vector<std::int64_t>{10, 11});
    CHECK(boost::json::serialize(outbox.batch()[0]) ==
          R"({"vm":{"id":"x"},"rev":10,"at":"2026-01-02T12:00:00.000Z","kind":"vm.created"})");
    outbox.ack(10);
    CHECK(revs(outbox) == std::vector<std::int64_t>{11});
    outbox.ack(10);
    outbox.ack(11);
    CHECK(outbox.size() == 0);
    CHECK(outbox.bytes() == 0);
}

TEST_CASE("a fact that isn't kept after all holds nothing up", "[heartbeat]") {
    Outbox outbox{1};
    add(outbox);
    add(outbox);
    outbox.release(2);
    outbox.take_back(1);
    CHECK(revs(outbox) == std::vector<std::int64_t>{2});
}

TEST_CASE("a batch has a bound", "[heartbeat]") {
    Outbox outbox{1};
    for (std::size_t i = 0; i < Outbox::max_batch + 20; ++i) outbox.release(add(outbox));
    CHECK(outbox.batch().size() == Outbox::max_batch);
}

TEST_CASE("what earlier runs left comes first, and its numbers aren't used again", "[heartbeat]") {
    Outbox outbox{5};
    outbox.restore({{7, noon, R"({"rev":7})"}, {8, noon, R"({"rev":8})"}});
    outbox.release(add(outbox));
    CHECK(revs(outbox) == std::vector<std::int64_t>{7, 8, 9});
}

TEST_CASE("old facts are let go of, and counted", "[heartbeat]") {
    Outbox outbox{1};
    outbox.release(add(outbox, noon));
    outbox.release(add(outbox, noon + 1h));
    CHECK_FALSE(outbox.prune(noon + Outbox::max_age));
    CHECK(outbox.prune(noon + Outbox::max_age + 1s) == 1U);
    CHECK(revs(outbox) == std::vector<std::int64_t>{2});
    CHECK(outbox.lost() == 1);
    CHECK(outbox.lost_since() == noon + Outbox::max_age + 1s);
}

TEST_CASE("the oldest is given up only while it is that", "[heartbeat]") {
    Outbox outbox{1};
    CHECK_FALSE(outbox.give_up(1, noon));
    for (int i = 0; i < 2; ++i) outbox.release(add(outbox));
    CHECK_FALSE(outbox.give_up(2, noon));
    CHECK(outbox.lost() == 0);
    CHECK(outbox.give_up(1, noon));
    CHECK_FALSE(outbox.give_up(1, noon));
    CHECK(revs(outbox) == std::vector<std::int64_t>{2});
    CHECK(outbox.lost() == 1);
}

TEST_CASE("no more is kept than fits", "[heartbeat]") {
    Outbox outbox{1};
    const std::string large(1'000'000, 'x');
    for (int i = 0; i < 60; ++i) outbox.release(outbox.add(noon, "command.result", {{"problem", large}}).rev);
    const auto dropped = outbox.prune(noon);
    REQUIRE(dropped);
    CHECK(outbox.bytes() <= Outbox::max_bytes);
    CHECK(outbox.bytes() > Outbox::max_bytes - 2'000'000);
    CHECK(outbox.lost() == *dropped);
}

TEST_CASE("an ack beyond what the contract counts moves no number", "[heartbeat]") {
    Outbox outbox{1};
    outbox.ack(std::uint64_t{1} << 63U);
    CHECK(add(outbox) == 1);
}
