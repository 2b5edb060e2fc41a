// A machine that sleeps, wakes, changes its network, or stops.
#include "heartbeat/link.hpp"
#include "tests/unit/heartbeat/link_scene.hpp"

#include <boost/json/serialize.hpp>

#include <algorithm>

using namespace std::chrono_literals;
using namespace ghost;
using namespace ghost::tests;
using heartbeat::Call;
namespace json = boost::json;

TEST_CASE("after our own wake or a change of network a beat comes within three seconds", "[link]") {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
        LinkScene s{seed};
        s.member();
        s.connect();
        const bool away = seed % 2 == 0;
        if (away) {
            s.reachable = false;
            (void)s.pass(10min);
            s.reachable = true;
        }
        const auto now = s.clock.now();
        if (seed % 3 == 0)
            s.link->woke(now, s.wall());
        else
            s.link->network_changed(now, s.wall());
        const auto beat = s.until(Call::heartbeat);
        CHECK(beat.at - now <= 3s);
        CHECK(text(beat.body.at("reason")) == (seed % 3 == 0 ? "wake" : "network"));
        check_core_is_content(s);
    }
}

TEST_CASE("addresses that change without a session, or while it opens, are told", "[link]") {
    LinkScene s;
    s.member();
    const auto call = s.link->next(s.clock.now(), s.wall());
    s.node.local = "192.168.1.3";
    s.link->addresses_changed();
    (void)s.carry(std::get<heartbeat::CoreCall>(call));
    (void)s.pass(5s);
    CHECK(s.core.agent(LinkScene::agent_id)->addresses.at("local") == json::array{"192.168.1.3"});
    // One that flaps isn't told all the time.
    std::size_t sessions = 0;
    for (int i = 0; i < 60; ++i) {
        s.node.local = fmt::format("192.168.1.{}", i);
        s.link->addresses_changed();
        sessions += only(Call::session, s.pass(1s)).size();
    }
    CHECK(sessions <= 3);
    (void)s.pass(40s);
    CHECK(s.core.agent(LinkScene::agent_id)->addresses.at("local") == json::array{"192.168.1.59"});
    check_core_is_content(s);
}

TEST_CASE("a call that is given up for a change of network is nobody's failure", "[link]") {
    LinkScene s;
    s.core.settings.core_urls = {"https://b.example"};
    s.member();
    s.connect();
    s.fault = base::Error{base::Errc::cancelled, "given up"};
    s.link->changed(s.clock.now());
    (void)s.step(s.clock.now() + 2s);
    s.fault.reset();
    s.link->network_changed(s.clock.now(), s.wall());
    CHECK(s.link->status().failures == 0);
    CHECK(s.until(Call::heartbeat).url == "https://core.example");
}

TEST_CASE("a change of network doesn't shorten what Core asked for", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.core.faults.overrides.push_back({"heartbeat", 503, 1, 120});
    (void)s.pass(70s);
    const auto refused = s.clock.now();
    for (int i = 0; i < 10; ++i) {
        s.link->network_changed(s.clock.now(), s.wall());
        CHECK(s.pass(5s).empty());
    }
    CHECK(s.until(Call::heartbeat).at - refused >= 50s);
}

TEST_CASE("what Core asked for is over with its next good answer, or a sleep", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.answer(s.next_call(), heartbeat::CoreAnswer{503, 3600s, "{}"});
    if (GENERATE(false, true)) {
        s.clock.sleep(10min);
        s.link->woke(s.clock.now(), s.wall());
        s.clock.advance(100ms);
    } else {
        (void)s.until(Call::heartbeat, 2h);
        s.answer(s.next_call(), heartbeat::CoreAnswer{503, 3600s, "{}"});
        s.link->woke(s.clock.now(), s.wall());
        (void)s.until(Call::heartbeat);
    }
    const auto now = s.clock.now();
    s.link->network_changed(now, s.wall());
    CHECK(s.until(Call::heartbeat, 2h).at - now <= 3s);
}

TEST_CASE("a network that changes all the time puts nothing off", "[link]") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        LinkScene s{seed};
        s.member();
        s.reachable = false;
        (void)s.pass(5min);
        const auto began = s.clock.now();
        std::vector<Sent> sent;
        while (sent.empty()) {
            s.link->network_changed(s.clock.now(), s.wall());
            sent = s.pass(500ms);
        }
        CHECK(sent.front().at - began <= 2s);
    }
}

TEST_CASE("a machine that goes to sleep says so, and nothing until it woke", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    (void)s.pass(10s);
    s.link->about_to_sleep(s.clock.now());
    CHECK_FALSE(s.link->suspend_told());
    const auto sent = s.step(s.clock.now() + 1s);
    REQUIRE(sent);
    CHECK(sent->body.at("reason") == "suspend");
    CHECK(s.link->suspend_told());
    SECTION("it sleeps") {
        s.link->changed(s.clock.now());
        CHECK(s.pass(30s).empty());
        s.clock.sleep(8h);
        s.link->woke(s.clock.now(), s.wall());
        CHECK(s.until(Call::heartbeat).body.at("reason") == "wake");
    }
    SECTION("it doesn't after all") { CHECK(only(Call::heartbeat, s.pass(3min)).size() >= 2); }
    check_core_is_content(s);
}

TEST_CASE("a network that goes down with a machine that goes to sleep costs nothing that is told of it", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    (void)s.pass(10s);
    const base::Error gone{base::Errc::source_unavailable, "the connection was closed"};
    const auto network_changes = [&] { s.link->network_changed(s.clock.now(), s.wall()); };
    s.link->about_to_sleep(s.clock.now());
    SECTION("before the beat is out") {
        network_changes();
        CHECK_FALSE(s.link->suspend_told());
    }
    SECTION("while it is under way") {
        const auto call = s.next_call();
        network_changes();
        SECTION("and arrives") { (void)s.carry(call); }
        SECTION("and is lost") { s.answer(call, base::fail(gone)); }
        SECTION("and was given up") { s.answer(call, base::fail(base::Errc::cancelled, "given up")); }
    }
    SECTION("when it was lost") {
        s.answer(s.next_call(), base::fail(gone));
        network_changes();
        CHECK_FALSE(s.link->suspend_told());
    }
    SECTION("after it") {
        REQUIRE(s.step(s.clock.now() + 1s));
        network_changes();
    }
    network_changes();
    (void)s.pass(1s);
    CHECK(s.link->suspend_told());
    CHECK(s.core.agent(LinkScene::agent_id)->reasons["suspend"] == 1);
    network_changes();
    CHECK(s.pass(30s).empty());
    SECTION("it sleeps") {
        s.clock.sleep(8h);
        s.link->woke(s.clock.now(), s.wall());
        CHECK(s.until(Call::heartbeat).body.at("reason") == "wake");
        CHECK(only(Call::heartbeat, s.pass(10s)).empty());
    }
    SECTION("it doesn't after all") { CHECK(s.until(Call::heartbeat).body.at("reason") == "network"); }
    check_core_is_content(s);
}

TEST_CASE("a network that stays down costs a sleep one more try", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.link->about_to_sleep(s.clock.now());
    s.reachable = false;
    for (int i = 0; i < 5; ++i) {
        (void)s.pass(100ms);
        s.link->network_changed(s.clock.now(), s.wall());
    }
    CHECK(s.link->suspend_told());
    CHECK(s.link->status().beats_failed == 2);
}

TEST_CASE("a renewal that is due waits while a sleep is told of", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.clock.advance(20h);
    s.link->about_to_sleep(s.clock.now());
    const auto sent = s.step(s.clock.now() + 1s);
    REQUIRE(sent);
    CHECK(sent->call == Call::heartbeat);
    CHECK(sent->body.at("reason") == "suspend");
}

TEST_CASE("a suspend waits for nobody who isn't there", "[link]") {
    LinkScene s;
    s.member();
    s.link->about_to_sleep(s.clock.now());
    CHECK(s.link->suspend_told());
}

TEST_CASE("an agent that stops says goodbye", "[link]") {
    LinkScene s;
    s.member();
    CHECK_FALSE(s.link->last_beat(s.clock.now(), s.wall()));
    CHECK_FALSE(s.link->goodbye());
    s.connect();
    const auto beat = s.link->last_beat(s.clock.now(), s.wall());
    REQUIRE(beat);
    CHECK(beat->body.at("reason") == "shutdown");
    CHECK(beat->timeout <= 2s);
    (void)s.carry(*beat);
    const auto goodbye = s.link->goodbye();
    REQUIRE(goodbye);
    CHECK(s.carry(*goodbye).status == 204);
    CHECK(s.core.agent(LinkScene::agent_id)->left);
    check_core_is_content(s);
}
