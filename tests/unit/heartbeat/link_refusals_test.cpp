// What Core doesn't take of a beat, and how the node lives on with the rest.
#include "heartbeat/link.hpp"
#include "tests/unit/heartbeat/link_scene.hpp"

#include <boost/json/serialize.hpp>

#include <algorithm>

using namespace std::chrono_literals;
using namespace ghost;
using namespace ghost::tests;
using heartbeat::Call;
using heartbeat::CoreAnswer;
namespace json = boost::json;

namespace {

std::size_t acks_in(const heartbeat::CoreCall& call) { return call.body.at("acks").as_array().size(); }
bool has_delta(const heartbeat::CoreCall& call) { return call.body.contains("delta"); }

std::string conditions_of(const LinkScene& s) { return json::serialize(s.link->conditions()); }

void take_commands(LinkScene& s, int count) {
    json::array commands;
    for (int i = 0; i < count; ++i)
        commands.push_back(json::object{{"id", fmt::format("c{}", i)}, {"kind", "vm.start"}, {"target", "web"}});
    std::vector<std::string> faults;
    s.inbox.admit(s.inbox.take(commands, s.wall(), faults));
    s.link->changed(s.clock.now());
}

}  // namespace

TEST_CASE("a state that Core finds fault with is left out, and the node lives on with its lease", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.show_vm();
    const auto status = GENERATE(400U, 422U);
    std::size_t beats = 0;
    std::size_t refused = 0;
    std::size_t sessions = 0;
    const auto end = s.clock.now() + 1h;
    while (s.clock.now() < end) {
        const auto call = s.next_call();
        if (call.call == Call::session) ++sessions;
        if (call.call == Call::heartbeat && has_delta(call)) {
            ++refused;
            s.answer(call, CoreAnswer{status, {}, R"({"detail":"vms[0].name: expected a text"})"});
        } else {
            CHECK(s.carry(call).status == 200);
            ++beats;
        }
        CHECK(s.link->status().detail.find("expected a text") != std::string::npos);
        CHECK(conditions_of(s).find("StateRefused") != std::string::npos);
        CHECK(s.state() == "refused");
    }
    CHECK(beats >= 58);
    CHECK(refused <= 14);
    CHECK(sessions == 0);
    for (int i = 0; i < 10 && s.state() != "connected"; ++i) (void)s.pass(1min);
    CHECK(s.state() == "connected");
    CHECK(conditions_of(s) == "[]");
    check_views_agree(s);
}

TEST_CASE("a state that is refused is told whole when it is tried again", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.show_vm();
    s.answer(s.next_call(), CoreAnswer{422, {}, "{}"});
    for (const auto& sent : s.pass(10min))
        if (const auto* delta = sent.body.as_object().if_contains("delta")) CHECK(delta->at("full") == true);
    CHECK(s.state() == "connected");
    check_views_agree(s);
}

TEST_CASE("acks that are too much for one beat are told in several", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    take_commands(s, 100);
    const auto status = GENERATE(413U, 422U);
    const auto began = s.clock.now();
    while (s.inbox.has_news() && s.clock.now() - began < 10min) {
        const auto call = s.next_call();
        if (acks_in(call) > 20)
            s.answer(call, CoreAnswer{status, {}, "{}"});
        else
            (void)s.carry(call);
    }
    CHECK_FALSE(s.inbox.has_news());
    CHECK(s.clock.now() - began < 1min);
    (void)s.pass(1min);
    CHECK(s.state() == "connected");
    CHECK(conditions_of(s) == "[]");
}

TEST_CASE("an ack that Core takes in no beat costs no lease, and is said", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    take_commands(s, 10);
    const auto status = GENERATE(413U, 422U);
    std::size_t beats = 0;
    const auto end = s.clock.now() + 1h;
    while (s.clock.now() < end) {
        const auto call = s.next_call();
        CHECK(call.call == Call::heartbeat);
        if (acks_in(call) > 0) {
            s.answer(call, CoreAnswer{status, {}, "{}"});
            continue;
        }
        ++beats;
        CHECK(s.carry(call).status == 200);
        CHECK(s.state() == "connected");
        CHECK(conditions_of(s).find("AcksRefused") != std::string::npos);
    }
    CHECK(beats >= 55);
    CHECK(beats <= 90);
    (void)s.pass(12min);
    CHECK_FALSE(s.inbox.has_news());
    CHECK(conditions_of(s) == "[]");
}

TEST_CASE("a beat that brings nothing is told why only the lease is told, whatever failed before it", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.show_vm();
    s.answer(s.next_call(), CoreAnswer{413, {}, "{}"});
    const auto why = s.link->status().detail;
    CHECK(why.find("too large") != std::string::npos);
    s.reachable = false;
    (void)s.carry(s.next_call());
    CHECK(s.state() == "unreachable");
    s.reachable = true;
    (void)s.until(Call::heartbeat);
    CHECK(s.state() == "refused");
    CHECK(s.link->status().detail == why);
}

TEST_CASE("what is wrong with the link is told to Core and here, in the same words", "[link]") {
    LinkScene s;
    s.clock_off = -2h - 500ms;
    s.member();
    s.connect();
    CHECK(s.state() == "connected");
    const std::string words{"this machine's clock is 7200 s behind Core's"};
    REQUIRE(s.link->status().warnings.size() == 1);
    CHECK(s.link->status().warnings[0].message == words);
    CHECK(s.link->conditions().at(0).at("message") == json::value(words));
    s.clock_off = 0h;
    (void)s.pass(2min);
    CHECK(s.link->status().warnings.empty());
}

TEST_CASE("while the agent isn't connected it says when it tries again", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    CHECK_FALSE(s.link->status().next_attempt);
    SECTION("soon") {
        s.reachable = false;
        while (s.carry(s.next_call()).status != 0) {
        }
        for (int i = 0; i < 20; ++i) {
            (void)s.link->next(s.clock.now(), s.wall());
            const auto promised = s.link->status().next_attempt;
            const auto call = s.next_call();
            if (promised) CHECK(*promised == s.clock.now());
            CHECK_FALSE(s.link->status().next_attempt);
            (void)s.carry(call);
        }
    }
    SECTION("after what Core asked for") {
        s.answer(s.next_call(), CoreAnswer{503, 3600s, "{}"});
        (void)s.link->next(s.clock.now(), s.wall());
        const auto promised = s.link->status().next_attempt;
        REQUIRE(promised);
        (void)s.next_call();
        CHECK(*promised == s.clock.now());
    }
    SECTION("never") {
        s.answer(s.next_call(), CoreAnswer{409, {}, "{}"});
        (void)s.link->next(s.clock.now(), s.wall());
        CHECK_FALSE(s.link->status().next_attempt);
    }
}

TEST_CASE("facts that hang make no beat late", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    auto last = s.clock.now();
    std::size_t facts = 0;
    for (int i = 0; i < 200; ++i) {
        s.outbox.release(s.outbox.add(s.wall(), "vm.created", {}).rev);
        s.link->network_changed(s.clock.now(), s.wall());  // tries them soon, and ends a backoff
        (void)s.until(Call::heartbeat);
        last = s.clock.now() - s.round_trip;
        (void)s.step(s.clock.now() + std::chrono::milliseconds{i * 280});
        const auto call = s.next_call();
        if (call.call != Call::facts) continue;
        ++facts;
        CHECK(call.timeout >= 2s);
        CHECK(call.timeout <= 10s);
        s.clock.advance(call.timeout);
        s.answer(call, base::fail(base::Errc::deadline_exceeded, "no answer"));
        CHECK(s.until(Call::heartbeat).at - last <= 62s);
    }
    CHECK(facts > 30);
}
