// Commands and facts, as the link carries them.
#include "heartbeat/link.hpp"
#include "tests/unit/heartbeat/link_scene.hpp"

#include <boost/json/serialize.hpp>

#include <algorithm>

using namespace std::chrono_literals;
using namespace ghost;
using namespace ghost::tests;
using heartbeat::Call;
using heartbeat::CommandState;
namespace json = boost::json;

TEST_CASE("commands are delivered with beats, and told of until Core has heard", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    (void)s.core.queue(LinkScene::agent_id, {{"id", "c1"}, {"kind", "vm.start"}, {"target", "web"}});
    s.inbox.on_news = [&] { s.link->changed(s.clock.now()); };
    (void)s.pass(70s);
    CHECK(s.core.command("c1")->state == "accepted");
    (void)s.inbox.change("c1", CommandState::running, "op-1");
    s.core.faults.drop_reply.next = 1;
    (void)s.pass(20s);
    (void)s.inbox.change("c1", CommandState::succeeded);
    (void)s.pass(20s);
    CHECK(s.core.command("c1")->acks == std::vector<std::string>{"accepted", "running", "succeeded"});
    CHECK_FALSE(s.inbox.has_news());
    CHECK(s.inbox.find("c1")->confirmed);
    check_core_is_content(s);
}

TEST_CASE("facts are told in order, and again until Core has them", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    for (int i = 0; i < 250; ++i) {
        const auto id = fmt::format("019a2b3c-4d5e-7aaa-8a9b-{:012x}", i);
        s.outbox.release(
            s.outbox.add(s.wall(), "vm.created", {{"vm", json::object{{"id", id}, {"name", "x"}, {"owner", ""}}}}).rev);
    }
    s.core.faults.drop_reply.next = 1;
    s.link->facts_added(s.clock.now());
    (void)s.pass(3min);
    CHECK(s.core.facts().size() == 250);
    CHECK(s.outbox.size() == 0);
    check_core_is_content(s);
}

TEST_CASE("facts that Core doesn't take hold no beat up", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.outbox.release(
        s.outbox
            .add(s.wall(), "vm.created", {{"vm", json::object{{"id", LinkScene::vm_id}, {"name", "x"}, {"owner", ""}}}})
            .rev);
    const auto status = GENERATE(500U, 404U, 422U, 413U);
    s.core.faults.overrides.push_back({"facts", status, 1'000'000, {}});
    const auto sent = s.pass(120min);
    CHECK(s.state() == "connected");
    CHECK(only(Call::heartbeat, sent).size() >= 116);
    CHECK(sent.size() < 320);
    s.core.faults.overrides.clear();
    (void)s.pass(12min);
    const bool refused = status == 422 || status == 413;
    CHECK(s.core.facts().size() == (refused ? 0 : 1));
    CHECK(s.outbox.size() == 0);
    CHECK((json::serialize(s.link->conditions()).find("FactsLost") != std::string::npos) == refused);
}

TEST_CASE("of facts only the one is given up that Core finds fault with", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    const auto add = [&](std::string_view kind, int number) {
        const auto id = fmt::format("019a2b3c-4d5e-7aaa-8a9b-{:012x}", number);
        s.outbox.release(
            s.outbox.add(s.wall(), kind, {{"vm", json::object{{"id", id}, {"name", "x"}, {"owner", ""}}}}).rev);
    };
    for (int i = 0; i < 20; ++i) add(i == 7 ? "vm.exploded" : "vm.created", i);
    s.link->facts_added(s.clock.now());
    (void)s.pass(3h);
    CHECK(s.core.facts().size() == 19);
    CHECK(s.outbox.size() == 0);
    CHECK(s.outbox.lost() == 1);
}

TEST_CASE("answers to facts that break off hold no beat up", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.facts_fault = base::Error{base::Errc::source_unavailable, "the connection was closed"};
    s.outbox.release(
        s.outbox
            .add(s.wall(), "vm.created", {{"vm", json::object{{"id", LinkScene::vm_id}, {"name", "x"}, {"owner", ""}}}})
            .rev);
    const auto sent = s.pass(60min);
    CHECK(s.state() == "connected");
    CHECK(only(Call::heartbeat, sent).size() >= 58);
    CHECK(only(Call::facts, sent).size() < 60);
    CHECK(only(Call::session, sent).empty());
}

TEST_CASE("a command that takes its time costs no beats", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    s.inbox.on_news = [&] { s.link->changed(s.clock.now()); };
    (void)s.core.queue(LinkScene::agent_id, {{"id", "c1"}, {"kind", "image.add"}, {"params", json::object{}}});
    (void)s.pass(70s);
    (void)s.inbox.change("c1", CommandState::running, "op-1");
    (void)s.pass(10s);
    const auto sent = s.pass(10min);
    CHECK(sent.size() <= 12);
    (void)s.inbox.change("c1", CommandState::succeeded);
    s.core.faults.delivered_again.probability = 1;
    CHECK(s.pass(10min).size() <= 13);
    CHECK(s.core.command("c1")->state == "succeeded");
    check_core_is_content(s);
}

TEST_CASE("of facts that Core refuses it is said which, and what it says to them", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    for (int i = 0; i < 5; ++i) s.outbox.release(s.outbox.add(s.wall(), "vm.exploded", {}).rev);
    s.link->facts_added(s.clock.now());
    const auto refuse = [&] {
        auto call = s.next_call();
        for (; call.call != Call::facts; call = s.next_call()) (void)s.carry(call);
        s.answer(call, heartbeat::CoreAnswer{422, {}, R"({"detail":"items[0].kind: unknown"})"});
        return json::serialize(s.link->conditions());
    };
    CHECK(refuse().find("Core finds fault with facts of this agent: Core answered 422 (items[0].kind: unknown)") !=
          std::string::npos);
    (void)refuse();
    CHECK(refuse().find("Core refuses a fact of this agent, and later ones wait for it: Core answered 422 (items") !=
          std::string::npos);
}

TEST_CASE("a fact that was dropped while it was tried isn't given up in another's place", "[link]") {
    LinkScene s;
    s.member();
    s.connect();
    const auto add = [&] { s.outbox.release(s.outbox.add(s.wall(), "vm.exploded", {{"vm", json::object{}}}).rev); };
    add();
    const bool another = GENERATE(false, true);
    s.link->facts_added(s.clock.now());
    for (int refused = 0; refused < 20 && s.outbox.lost() == 0;) {
        const auto call = s.next_call();
        if (call.call != Call::facts) {
            (void)s.carry(call);
            continue;
        }
        // The eighth refusal is the last: meanwhile it became too old.
        if (++refused == 8) {
            CHECK(s.outbox.prune(s.wall() + 24h * 15));
            if (another) add();
        }
        s.answer(call, heartbeat::CoreAnswer{422, {}, "{}"});
    }
    CHECK(s.outbox.lost() == 1);
    CHECK(s.outbox.size() == (another ? 1 : 0));
}
