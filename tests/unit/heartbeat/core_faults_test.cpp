#include "tests/unit/heartbeat/core_talk.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;

TEST_CASE_METHOD(Talk, "Core says its time and learns how far the agent's clock is off") {
    join();
    core.faults.clock_off_s = -7200;
    const auto reply = beat(0, 0, {{"wall", base::rfc3339_ms(clock.wall() + 90s)}});
    CHECK(reply.text("server_time") == base::rfc3339_ms(clock.wall() - 2h));
    CHECK(agent().clock_ahead == 90s);
}

TEST_CASE_METHOD(Talk, "faults of the way there and back") {
    join_and_sync();
    core.faults.drop_request.next = 1;
    CHECK(beat(1, 2, {{"delta", delta(false, {vm(vm_2)})}}).dropped);
    CHECK(agent().vms.size() == 1);
    core.faults.drop_reply.next = 1;
    CHECK(beat(1, 2, {{"delta", delta(false, {vm(vm_2)})}}).dropped);
    CHECK(agent().vms.size() == 2);
    core.faults.slow.next = 1;
    CHECK(beat(2, 2).delay == 2s);
    core.faults.too_many.next = 1;
    auto reply = beat(2, 2);
    CHECK(reply.status == 429);
    CHECK(reply.retry_after == "2");
    core.faults.truncated.next = 1;
    CHECK(beat(2, 2).cut_after);
    core.faults.garbage.next = 1;
    CHECK(beat(2, 2).body.empty());
    CHECK(beat(2, 2).status == 200);
    CHECK(beat(2, 2).delay == 0s);
    CHECK(core.violations().empty());
}

TEST_CASE_METHOD(Talk, "server errors come before and after acting, with Retry-After and without") {
    join();
    core.faults.server_error.next = 200;
    std::map<unsigned, int> statuses;
    int asked_to_wait = 0;
    for (int i = 0; i < 200; ++i) {
        const auto reply = beat(0, 0);
        ++statuses[reply.status];
        asked_to_wait += reply.retry_after ? 1 : 0;
    }
    CHECK(statuses.size() == 3);
    CHECK(statuses.contains(500));
    CHECK(statuses.contains(502));
    CHECK(statuses.contains(503));
    CHECK((asked_to_wait > 50 && asked_to_wait < 150));
    CHECK((agent().beats > 50 && agent().beats < 150));
    CHECK(beat(0, 0).status == 200);
}

TEST_CASE_METHOD(Talk, "a route's next answers can be set") {
    join_and_sync();
    core.faults.overrides = {{.route = "heartbeat", .status = 426, .next = 2},
                             {.route = {}, .status = 503, .next = 1, .retry_after_s = 9}};
    CHECK(begin().status == 503);
    CHECK(beat(0, 0).text("minimum_version") == "99.0.0");
    CHECK(beat(0, 0).status == 426);
    REQUIRE(begin().status == 200);
    CHECK(beat(0, 0).status == 200);
}

TEST_CASE_METHOD(Talk, "commands are doubled, reordered and delivered again") {
    join_and_sync();
    std::vector<std::string> ids;
    ids.reserve(10);
    for (int i = 0; i < 10; ++i) ids.push_back(core.queue(agent_id, {{"kind", "agent.drain"}}));
    core.faults.doubled.next = 1;
    const auto doubled = ids_of(beat(1, 1));
    CHECK(doubled.size() == 20);
    CHECK(doubled[0] == doubled[1]);
    core.faults.reordered.next = 1;
    auto reordered = ids_of(beat(1, 1));
    CHECK(reordered != ids);
    CHECK(std::ranges::is_permutation(reordered, ids));
    json::array acks;
    for (const auto& id : ids) acks.push_back(ack(id, "succeeded"));
    CHECK(ids_of(beat(1, 1, {{"acks", acks}})).empty());
    core.faults.delivered_again.next = 1;
    CHECK(ids_of(beat(1, 1)) == ids);
    CHECK(ids_of(beat(1, 1)).empty());
    CHECK(core.violations().empty());
}

TEST_CASE_METHOD(Talk, "Core forgets its sessions, but not what it asked for") {
    join_and_sync();
    const auto id = core.queue(agent_id, {{"kind", "agent.drain"}});
    core.faults.forgets_sessions.next = 1;
    CHECK(beat(1, 1).status == 404);
    REQUIRE(begin().status == 200);
    CHECK(ids_of(beat(0, 1, {{"delta", delta(true, {})}})) == std::vector{id});
    CHECK(core.violations().empty());
}

TEST_CASE("the same seed gives the same faults") {
    const auto run = [] {
        Talk talk;
        talk.join_and_sync();
        talk.core.faults.drop_reply.probability = 0.3;
        talk.core.faults.too_many.probability = 0.3;
        std::string seen;
        for (int i = 0; i < 100; ++i) {
            const auto reply = talk.beat(1, 1);
            seen += reply.dropped ? 'd' : reply.status == 429 ? 't' : '.';
        }
        return seen;
    };
    const auto first = run();
    CHECK(first == run());
    CHECK(first.contains('d'));
    CHECK(first.contains('t'));
    CHECK(first.contains('.'));
}

TEST_CASE("faults are read from JSON and shown as it") {
    const auto read = [](std::string_view text, const FakeCore::Faults& before = {}) {
        return fakes::read_faults(json::parse(json::string_view{text.data(), text.size()}).as_object(), before);
    };
    auto faults = read(R"({"drop_reply": 0.5, "slow": {"next": 3}, "clock_off_s": -7200, "slow_ms": 100,
                           "overrides": [{"route": "session", "status": 404, "next": 2, "retry_after_s": 5}]})");
    REQUIRE(faults);
    CHECK(faults->drop_reply.probability == 0.5);
    CHECK(faults->slow.next == 3);
    CHECK(faults->clock_off_s == -7200);
    CHECK(faults->slow_ms == 100);
    REQUIRE(faults->overrides.size() == 1);
    CHECK(faults->overrides[0].status == 404);
    const auto shown = fakes::to_json(*faults);
    CHECK(fakes::to_json(*fakes::read_faults(shown, {})) == shown);
    CHECK(read(R"({"slow": 0})", *faults)->drop_reply.probability == 0.5);
    for (const auto* text : {R"({"drop_reply": 2})", R"({"drop_reply": "often"})", R"({"slow": {"often": 1}})",
                             R"({"slow": {"next": -1}})", R"({"nothing": 1})", R"({"slow_ms": 1.5})",
                             R"({"clock_off_s": "2h"})", R"({"overrides": {}})", R"({"overrides": [{"status": 200}]})",
                             R"({"overrides": [{"route": "beat", "status": 500}]})"}) {
        CAPTURE(text);
        CHECK_FALSE(read(text));
    }
    CHECK_THAT(read(R"({"sloth": 1})").error().detail,
               Catch::Contains("sloth: is not known") && Catch::Contains("drop_request, ") &&
                   Catch::Contains("slow_ms, ") && Catch::Contains("overrides, certificate"));
    for (const auto name : fakes::fault_names()) CHECK_THAT(fakes::fault_words(), Catch::Contains(std::string{name}));
}

TEST_CASE("times are RFC 3339 in UTC") {
    CHECK(fakes::read_timestamp("2026-01-02T03:04:05Z") == base::from_unix_ms(1'767'323'045'000));
    CHECK(fakes::read_timestamp("2026-01-02T03:04:05.6Z") == base::from_unix_ms(1'767'323'045'600));
    CHECK(fakes::read_timestamp("2026-01-02T03:04:05.678901234Z") == base::from_unix_ms(1'767'323'045'678));
    for (const auto* text :
         {"", "Z", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "2026-01-02T24:04:05Z",
          "2026-01-02T03:04:05.Z", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05.0123456789Z"}) {
        CAPTURE(text);
        CHECK_FALSE(fakes::read_timestamp(text));
    }
}

TEST_CASE_METHOD(Talk, "the page shows what Core knows") {
    join_and_sync();
    const auto id = core.queue(agent_id, {{"kind", "agent.drain"}});
    const auto page = core.page();
    const auto& shown = page.at("agents").at(agent_id);
    CHECK(shown.at("name") == "den");
    CHECK(shown.at("presence") == "online");
    CHECK(shown.at("seq") == 1);
    CHECK(shown.at("vms").as_array().size() == 1);
    CHECK(shown.at("resources").at("memory_mib").at("free") == 7.5);
    CHECK(page.at("commands").as_array().at(0).at("id") == json::string{id});
    CHECK(page.at("violations").as_array().empty());
}
