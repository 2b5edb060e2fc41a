#include "heartbeat/link.hpp"

#include "tests/unit/heartbeat/link_scene.hpp"

#include <boost/json/serialize.hpp>

#include <algorithm>

using namespace std::chrono_literals;
using namespace ghost;
using namespace ghost::tests;
using heartbeat::Call;
namespace json = boost::json;

TEST_CASE("a session is opened, then everything is told", "[link]") {
    LinkScene s;
    s.view.put_vm(LinkScene::vm_id, core_vm(LinkScene::vm_id));
    s.member();
    CHECK(s.state() == "connecting");
    const auto first = s.step(s.clock.now() + 1s);
    REQUIRE(first);
    CHECK(first->call == Call::session);
    CHECK(first->status == 200);
    const auto second = s.step(s.clock.now() + 1s);
    REQUIRE(second);
    CHECK(second->call == Call::heartbeat);
    CHECK(second->body.at("reason") == "change");
    CHECK(second->body.at_pointer("/delta/full") == true);
    CHECK(s.state() == "connected");
    check_views_agree(s);
    check_core_is_content(s);
}

TEST_CASE("a node at rest beats within its time to live, in less than 400 bytes and without a delta", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    const auto sent = s.pass(20min);
    auto last = sent.front().at;
    for (const auto& beat : sent) {
        CHECK(beat.call == Call::heartbeat);
        CHECK_FALSE(beat.body.as_object().contains("delta"));
        CHECK(beat.body.at("reason") == "periodic");
        CHECK(json::serialize(beat.body).size() < 400);
        if (&beat != &sent.front()) {
            CHECK(beat.at - last >= 51s);
            CHECK(beat.at - last <= 60s);
        }
        last = beat.at;
    }
    CHECK(sent.size() >= 19);
    check_core_is_content(s);
}

TEST_CASE("a change is told soon, and only the change", "[link]") {
    LinkScene s;
    s.view.put_vm(LinkScene::vm_id, core_vm(LinkScene::vm_id));
    s.member();
    s.connect();
    (void)s.pass(5s);
    s.view.put_vm(LinkScene::vm_id, core_vm(LinkScene::vm_id, "off"));
    s.link->changed(s.clock.now());
    const auto sent = s.pass(1s);
    REQUIRE(sent.size() == 1);
    CHECK(sent[0].body.at("reason") == "change");
    CHECK(sent[0].body.at_pointer("/delta/full") == false);
    CHECK(sent[0].body.at_pointer("/delta/vms/upsert").as_array().size() == 1);
    check_views_agree(s);
    check_core_is_content(s);
}

TEST_CASE("what an answer that was lost told is told again", "[link]") {
    LinkScene s;
    s.view.put_vm(LinkScene::vm_id, core_vm(LinkScene::vm_id));
    s.member();
    s.connect();
    s.core.faults.drop_reply.next = 1;
    s.view.remove_vm(LinkScene::vm_id);
    s.link->changed(s.clock.now());
    (void)s.pass(10s);
    check_views_agree(s);
    check_core_is_content(s);
}

TEST_CASE("everything is told again now and then", "[link]") {
    LinkScene s;
    s.core.settings.full_sync_every_s = 600;
    s.member();
    s.connect();
    const auto beats = s.pass(60min);
    const auto full = std::ranges::count_if(beats, [](const Sent& b) { return b.body.as_object().contains("delta"); });
    CHECK(full >= 4);
    CHECK(full <= 8);
}

TEST_CASE("an answer that takes too much patience is a failure, and backoff is jittered and bounded", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.reachable = false;
    const auto sent = s.pass(60min);
    CHECK(s.state() == "unreachable");
    CHECK(s.link->status().detail.find("refused") != std::string::npos);
    for (std::size_t i = 1; i < sent.size(); ++i) CHECK(sent[i].at - sent[i - 1].at <= 5min + 1s);
    CHECK(sent.size() > 15);
    CHECK(sent.size() < 70);
    s.reachable = true;
    s.connect();
    CHECK(s.state() == "connected");
    check_core_is_content(s);
}

TEST_CASE("a short failure is made good by the next beat, in the same session", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    const auto session = s.core.agent(LinkScene::agent_id)->session_id;
    s.core.faults.server_error.next = 2;
    (void)s.pass(3min);
    CHECK(s.core.agent(LinkScene::agent_id)->session_id == session);
    CHECK(s.state() == "connected");
    check_core_is_content(s);
}

TEST_CASE("after an outage a session is opened first, and the first beat takes its time", "[link]") {
    base::Duration shortest = 1h;
    base::Duration longest{};
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
        LinkScene s{seed};
        s.member();
        s.connect();
        s.reachable = false;
        (void)s.pass(10min);
        s.reachable = true;
        const auto session = s.until(Call::session);
        const auto beat = s.until(Call::heartbeat);
        shortest = std::min(shortest, beat.at - session.at);
        longest = std::max(longest, beat.at - session.at);
        check_core_is_content(s);
    }
    CHECK(shortest < 5s);
    CHECK(longest > 25s);
    CHECK(longest <= 31s);
}

TEST_CASE("an agent that found no Core at its start takes its time for the first beat, too", "[link]") {
    base::Duration longest{};
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        LinkScene s{seed};
        s.member();
        s.reachable = false;
        (void)s.pass(10min);
        s.reachable = true;
        const auto session = s.until(Call::session);
        longest = std::max(longest, s.until(Call::heartbeat).at - session.at);
    }
    CHECK(longest > 15s);
    CHECK(longest <= 31s);
}

TEST_CASE("a Retry-After beyond all reason is an hour", "[link]") {
    for (const auto* text :
         {"3600", "100000", "9223372037", "10000000000", "9223372036854775807", "99999999999999999999"}) {
        CAPTURE(text);
        net::Headers headers;
        headers.set("Retry-After", text);
        const auto asked = heartbeat::retry_after_in(headers);
        REQUIRE(asked);
        fakes::SeededRandom random{1};
        const auto wait = heartbeat::Retry{}.after_failure(random, asked);
        CHECK(wait >= 1h);
        CHECK(wait <= 1h + 1min);
    }
    for (const auto* text : {"", "-1", "soon", "12s", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999999999x"}) {
        net::Headers headers;
        headers.set("Retry-After", text);
        CHECK_FALSE(heartbeat::retry_after_in(headers));
    }
}

TEST_CASE("Core's Retry-After is kept to", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.core.faults.overrides.push_back({"heartbeat", 503, 1, 120});
    const auto sent = s.pass(5min);
    const auto refused = std::ranges::find(sent, 503U, &Sent::status);
    REQUIRE(refused != sent.end());
    REQUIRE(std::next(refused) != sent.end());
    CHECK(std::next(refused)->at - refused->at >= 120s);
    CHECK(std::next(refused)->at - refused->at <= 155s);
}

TEST_CASE("Core's other addresses are tried in turn", "[link]") {
    LinkScene s;
    s.core.settings.core_urls = {"https://b.example", "https://c.example"};
    s.member();
    s.connect();
    CHECK(s.link->status().url == "https://core.example");
    s.dead_urls = {"https://core.example", "https://b.example"};
    const auto beat = s.until(Call::heartbeat, 10min);
    CHECK(beat.url == "https://c.example");
    s.dead_urls = {"https://c.example"};
    CHECK(s.until(Call::heartbeat, 10min).url == "https://core.example");
}

TEST_CASE("a session that Core doesn't know is opened again, at once", "[link]") {
    LinkScene s;
    s.view.put_vm(LinkScene::vm_id, core_vm(LinkScene::vm_id));
    s.member();
    s.connect();
    s.core.forget_sessions();
    const auto sent = s.pass(70s);
    REQUIRE(sent.size() >= 3);
    CHECK(sent[0].status == 404);
    CHECK(sent[1].call == Call::session);
    CHECK(sent[2].call == Call::heartbeat);
    CHECK(sent[2].at - sent[0].at < 1s);
    check_views_agree(s);
    check_core_is_content(s);
}

TEST_CASE("a Core that forgets every session isn't asked for one without a pause", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.core.faults.overrides.push_back({"heartbeat", 404, 1'000'000, {}});
    CHECK(s.pass(60min).size() < 100);
    s.core.faults.overrides.clear();
    s.connect();
}

TEST_CASE("a Core that always wants everything gets it with each beat, not all the time", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    for (int i = 0; i < 3; ++i) {
        s.core.forget_sessions();
        (void)s.pass(3min);
    }
    CHECK(s.state() == "connected");
    CHECK(s.pass(10min).size() <= 12);
}

TEST_CASE("a duplicate stops reporting and says so", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    SECTION("another took over: a beat is refused") {
        s.core.faults.overrides.push_back({"heartbeat", 409, 1, {}});
        (void)s.pass(2min);
    }
    SECTION("another is newer: the session is refused") {
        s.core.forget_sessions();
        s.core.faults.overrides.push_back({"session", 409, 1, {}});
        (void)s.pass(2min);
    }
    CHECK(s.state() == "duplicate");
    CHECK(s.link->status().detail.find("copied") != std::string::npos);
    CHECK(s.pass(48h).empty());
    s.link->woke(s.clock.now(), s.wall());
    CHECK(s.pass(48h).empty());
}

TEST_CASE("a node that is told to leave stops reporting, and asks once a day", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.core.faults.overrides.push_back({"", 410, 4, {}});
    const auto sent = s.pass(73h);
    CHECK(s.state() == "left");
    CHECK(sent.size() >= 3);
    CHECK(sent.size() <= 4);
    CHECK(s.until(Call::heartbeat, 30h).status == 200);
    CHECK(s.state() == "connected");
}

TEST_CASE("an agent that Core doesn't know keeps trying slowly", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.core.forget_agent(LinkScene::agent_id);
    const auto sent = s.pass(2h);
    CHECK(s.state() == "refused");
    CHECK(s.link->status().detail.find("enrol it again") != std::string::npos);
    CHECK(sent.size() >= 12);
    CHECK(sent.size() <= 28);
    s.core.add_agent(LinkScene::agent_id);
    s.connect();
}

TEST_CASE("a state that is too large is said, and the node lives on with its lease", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.core.faults.overrides.push_back({"heartbeat", 413, 1, {}});
    s.view.put_vm(LinkScene::vm_id, core_vm(LinkScene::vm_id));
    s.link->changed(s.clock.now());
    const auto sent = s.pass(4min);
    CHECK(s.state() == "refused");
    const auto beats = only(Call::heartbeat, sent);
    REQUIRE(beats.size() >= 4);
    CHECK(beats[0].status == 413);
    for (std::size_t i = 1; i < beats.size(); ++i) {
        CHECK(beats[i].status == 200);
        CHECK_FALSE(beats[i].body.as_object().contains("delta"));
        CHECK(json::serialize(beats[i].body.at("conditions")).find("StateTooLarge") != std::string::npos);
        CHECK(beats[i].at - beats[i - 1].at <= 60s);
    }
    (void)s.pass(5min);
    CHECK(s.state() == "connected");
    check_views_agree(s);
}

TEST_CASE("a Core that wants a newer agent is asked slowly", "[link]") {
    LinkScene s;
    s.member();
    s.core.faults.overrides.push_back({"session", 426, 3, {}});
    const auto sent = s.pass(12min);
    CHECK(s.state() == "refused");
    CHECK(s.link->status().detail.find("newer version") != std::string::npos);
    CHECK(sent.size() <= 3);
    s.connect();
}

TEST_CASE("what Core finds fault with is told whole, in a new session", "[link]") {
    LinkScene s;
    s.view.put_vm(LinkScene::vm_id, core_vm(LinkScene::vm_id));
    s.member();
    s.connect();
    s.core.faults.overrides.push_back({"heartbeat", 422, 1, {}});
    const auto sent = s.pass(2min);
    CHECK(only(Call::session, sent).size() == 1);
    CHECK(s.state() == "connected");
}

TEST_CASE("answers that make no sense are failures", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.core.faults.garbage.next = 2;
    (void)s.pass(90s);
    s.connect();
    CHECK(s.link->status().failures == 2);
    check_core_is_content(s);
}

TEST_CASE("clocks are compared, and Core's is used for Core's deadlines", "[link]") {
    LinkScene s;
    s.clock_off = GENERATE(-2h, 0h, 2h);
    s.member();
    s.connect();
    const auto off = s.link->core_time(s.wall()) - s.clock.wall();
    CHECK(std::chrono::abs(off) < 1s);
    const auto conditions = json::serialize(s.link->conditions());
    CHECK((conditions.find("ClockSkew") != std::string::npos) == (s.clock_off != 0h));
    if (s.clock_off < 0h) CHECK(conditions.find("clock_behind") != std::string::npos);
    s.clock_off = 0h;  // somebody sets it
    (void)s.pass(2min);
    CHECK(s.link->conditions().empty());
    check_core_is_content(s);
}

TEST_CASE("a certificate of Core's that isn't valid yet names our clock", "[link]") {
    LinkScene s;
    s.member();
    base::Error not_yet{base::Errc::source_unavailable, "cannot connect to Core: certificate is not yet valid"};
    not_yet.facts["certificate"] = "certificate is not yet valid";
    s.fault = not_yet;
    (void)s.pass(20min);
    CHECK(s.state() == "unreachable");
    CHECK(s.link->status().detail.find("this machine's clock says 2026-01-02T03:") != std::string::npos);
    s.fault.reset();
    s.connect();
}

TEST_CASE("a certificate of the operator's that isn't taken is said, and tried slowly", "[link]") {
    LinkScene s;
    s.settings.own_certificate = false;
    s.member();
    s.connect();
    s.core.faults.overrides.push_back({"", 401, 3, {}});
    const auto sent = s.pass(15min);
    CHECK(s.state() == "refused");
    CHECK(s.link->status().detail.find("core.tls_cert") != std::string::npos);
    CHECK(only(Call::renew, sent).empty());
    s.connect();
    CHECK(only(Call::renew, s.pass(48h)).empty());
}

TEST_CASE("without a certificate or a token nothing is sent", "[link]") {
    LinkScene s;
    s.open({});
    CHECK(s.state() == "not_enrolled");
    CHECK(s.pass(48h).empty());
}
