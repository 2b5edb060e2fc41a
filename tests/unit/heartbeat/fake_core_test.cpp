#include "tests/unit/heartbeat/core_talk.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;

TEST_CASE_METHOD(Talk, "a token is good for one installation, whose answer may be lost") {
    const auto first = enroll();
    REQUIRE(first.status == 201);
    CHECK(first.text("certificate") == "certificate of " + first.text("agent_id"));
    CHECK(first.text("ca") == "the CA");
    CHECK(first.body.at("core_urls").as_array().size() == 1);
    CHECK(enroll().text("agent_id") == first.text("agent_id"));
    const auto other = enroll("t0ken", vm_1);
    CHECK(other.status == 403);
    CHECK(other.text("code") == "token_used");
    CHECK(enroll("another").text("code") == "token_unknown");

    core.settings.tokens.insert("second");
    CHECK(enroll("second").text("agent_id") == first.text("agent_id"));
    CHECK(core.agents().size() == 1);
    CHECK(core.violations().empty());
    CHECK(enroll("second", install, "no csr").status == 422);
    CHECK_THAT(violation(), Catch::Contains("/csr"));
}

TEST_CASE_METHOD(Talk, "every route but the enrolment needs the agent's own certificate") {
    join_and_sync();
    const auto path = "/v1/agents/" + agent_id + "/";
    const auto whole = json::serialize(body(1, 1));
    CHECK(send(net::Method::post, path + "heartbeat", whole, {}).status == 401);
    CHECK(send(net::Method::post, path + "heartbeat", whole, {.certificate = agent_id, .expired = true}).status == 401);
    CHECK(send(net::Method::post, path + "heartbeat", whole, {.certificate = "another"}).status == 403);
    CHECK_THAT(violation(), Catch::Contains("with the certificate of another"));
    CHECK(send(net::Method::post, path + "heartbeat", whole, {.certificate = agent_id}).status == 200);
    CHECK(send(net::Method::get, path + "heartbeat", {}, {.certificate = agent_id}).status == 404);
    CHECK_THAT(violation(), Catch::Contains("no such route"));
    CHECK(send(net::Method::post, "/v1/agents/a/b/heartbeat", {}, {.certificate = agent_id}).status == 404);
}

TEST_CASE_METHOD(Talk, "an expired certificate renews, and nothing else") {
    join();
    clock.advance(23h);
    const auto path = "/v1/agents/" + agent_id + "/certificate";
    const auto renewed =
        send(net::Method::post, path, R"({"csr": "a csr"})", {.certificate = agent_id, .expired = true});
    CHECK(renewed.status == 200);
    CHECK(renewed.text("certificate") == "certificate of " + agent_id);
    CHECK(*agent().certificate_expires == clock.wall() + 24h);
    CHECK(agent().certificates == 2);
    CHECK(send(net::Method::post, path, R"({"csr": "no csr"})", {.certificate = agent_id}).status == 422);
}

TEST_CASE_METHOD(Talk, "sessions supersede by epoch and end with the silence") {
    join();
    const auto first = session_id;
    CHECK(begin(1).status == 200);
    CHECK(session_id != first);
    const auto second = std::exchange(session_id, first);
    CHECK(beat(0, 0).text("code") == "session_unknown");
    session_id = second;
    REQUIRE(begin(2).status == 200);
    const auto third = std::exchange(session_id, second);
    CHECK(beat(0, 0).text("code") == "superseded");
    CHECK(begin(1).status == 409);
    session_id = third;
    CHECK(beat(0, 0, {{"epoch", 2}}).status == 200);
    CHECK(core.violations().empty());
    CHECK(beat(0, 0, {{"epoch", 3}}).status == 422);

    clock.advance(240s);
    CHECK(beat(0, 0, {{"epoch", 2}}).status == 200);
    CHECK(core.presence(agent()) == "online");
    clock.advance(241s);
    CHECK(core.presence(agent()) == "lost");
    CHECK(beat(0, 0, {{"epoch", 2}}).status == 404);
    // A copy of the disk, on another machine.
    CHECK(at(net::Method::put, "session",
             json::object{{"epoch", 2},
                          {"boot_id", "another"},
                          {"name", "den"},
                          {"version", "1"},
                          {"features", json::array{"vms"}},
                          {"resources", resources()},
                          {"addresses", {{"local", json::array{}}}}})
              .status == 409);
}

TEST_CASE_METHOD(Talk, "leaving ends the session") {
    join();
    const auto path = "/v1/agents/" + agent_id + "/session";
    CHECK(send(net::Method::del, path, {}, {.certificate = agent_id}).status == 204);
    CHECK(core.presence(agent()) == "left");
    CHECK(send(net::Method::del, path, {}, {.certificate = agent_id}).status == 404);
    CHECK(beat(0, 0).status == 404);
}

TEST_CASE_METHOD(Talk, "an agent that isn't known or was told to leave gets no session") {
    agent_id = "ready-made";
    CHECK(begin().text("code") == "agent_unknown");
    core.settings.known_by_certificate = true;
    CHECK(begin().status == 200);
    agent().told_to_leave = true;
    CHECK(begin().status == 410);
    CHECK(beat(0, 0).status == 410);
    core.forget_agent(agent_id);
    CHECK(beat(0, 0).status == 404);
    core.settings.known_by_certificate = false;
    CHECK(begin().status == 404);
    core.add_agent(agent_id);
    CHECK(begin().status == 200);
}

TEST_CASE_METHOD(Talk, "deltas build the view, and Core asks for all of it when it can't") {
    join();
    auto reply = beat(0, 3);
    CHECK(reply.text("want") == "full");
    CHECK(reply.number("ack_rev") == 0);
    // Until there was a full one, no other is applied.
    reply = beat(0, 3, {{"delta", delta(false, {vm(vm_2)})}});
    CHECK(reply.text("want") == "full");
    CHECK(agent().vms.empty());
    reply = beat(0, 3, {{"delta", delta(true, {vm(vm_1), vm(vm_2, "web-2")})}});
    CHECK(reply.text("want") == "delta");
    CHECK(reply.number("ack_rev") == 3);
    CHECK(agent().vms.size() == 2);
    reply = beat(3, 4, {{"delta", delta(false, {}, {vm_2})}});
    CHECK(reply.number("ack_rev") == 4);
    // Its answer was lost: what changed since 3 comes again, with more.
    reply = beat(3, 5, {{"delta", delta(false, {vm(vm_1, "db-1")}, {vm_2})}});
    CHECK(reply.number("ack_rev") == 5);
    CHECK(agent().vms.size() == 1);
    CHECK(agent().vms.at(vm_1).at("name") == "db-1");
    CHECK(beat(5, 6).text("want") == "full");
    CHECK(beat(5, 6, {{"delta", delta(true, {})}}).number("ack_rev") == 6);
    CHECK(agent().vms.empty());
    CHECK(agent().full_syncs == 2);
    CHECK(core.violations().empty());
}

TEST_CASE_METHOD(Talk, "a beat that comes twice is applied once") {
    join_and_sync();
    seq = 0;
    const auto again = beat(0, 9, {{"delta", delta(true, {})}});
    CHECK(again.status == 200);
    CHECK(again.number("ack_rev") == 1);
    CHECK(agent().vms.size() == 1);
    CHECK(core.violations().empty());
    CHECK(beat(1, 1).status == 200);
    seq = 0;
    CHECK(beat(1, 1).status == 200);
    CHECK_THAT(violation(), Catch::Contains("seq 1 after 2"));
}

TEST_CASE_METHOD(Talk, "revisions that were never acked or go back are refused") {
    join_and_sync();
    CHECK(beat(7, 8, {{"delta", delta(false, {vm(vm_2)})}}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("/base_rev"));
    REQUIRE(beat(1, 4, {{"delta", delta(false, {vm(vm_2)})}}).status == 200);
    REQUIRE(beat(4, 4).status == 200);
    CHECK(beat(1, 4, {{"delta", delta(false, {vm(vm_2)})}}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("/base_rev"));
    CHECK(beat(4, 3).status == 422);
    CHECK_THAT(violation(), Catch::Contains("/state_rev"));
}

TEST_CASE_METHOD(Talk, "commands are delivered until their final ack") {
    join_and_sync();
    const auto first = core.queue(agent_id, {{"kind", "vm.start"}, {"target", "web-1"}});
    const auto second = core.queue(agent_id, {{"id", "second"}, {"kind", "agent.drain"}});
    CHECK(ids_of(beat(1, 1)) == std::vector{first, second});
    CHECK(ids_of(beat(1, 1, {{"acks", json::array{ack(first, "accepted"), ack(second, "rejected")}}})) ==
          std::vector{first});
    CHECK(core.command(second)->problem->at("code") == "not_found");
    CHECK(ids_of(beat(1, 1, {{"acks", json::array{ack(first, "running")}}})) == std::vector{first});
    CHECK(ids_of(beat(1, 1, {{"acks", json::array{ack(first, "succeeded")}}})).empty());
    CHECK(ids_of(beat(1, 1, {{"acks", json::array{ack(first, "succeeded")}}})).empty());
    CHECK(core.command(first)->delivered == 3);
    CHECK(core.command(first)->acks == std::vector<std::string>{"accepted", "running", "succeeded"});
    CHECK(core.violations().empty());
}

TEST_CASE_METHOD(Talk, "acks that can't be are refused") {
    join_and_sync();
    CHECK(beat(1, 1, {{"acks", json::array{ack("of-another-core", "accepted")}}}).status == 200);
    CHECK(core.violations().empty());
    const auto id = core.queue(agent_id, {{"kind", "agent.drain"}});
    CHECK(beat(1, 1, {{"acks", json::array{ack(id, "accepted")}}}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("was not delivered"));
    REQUIRE(ids_of(beat(1, 1)).size() == 1);
    auto running = ack(id, "running");
    running["operation"] = "op-1";
    REQUIRE(beat(1, 1, {{"acks", json::array{running}}}).status == 200);
    CHECK(beat(1, 1, {{"acks", json::array{ack(id, "accepted")}}}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("after running"));
    CHECK(beat(1, 1, {{"acks", json::array{ack(id, "rejected")}}}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("was begun"));
    running["operation"] = "op-2";
    CHECK(beat(1, 1, {{"acks", json::array{running}}}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("is done twice"));
    REQUIRE(beat(1, 1, {{"acks", json::array{ack(id, "succeeded")}}}).status == 200);
    CHECK(beat(1, 1, {{"acks", json::array{ack(id, "failed")}}}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("after succeeded"));
    CHECK(beat(1, 1, {{"acks", json::array{json::object{{"cmd_id", id}, {"state", "failed"}}}}}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("/acks/0/problem: is missing"));
}

TEST_CASE_METHOD(Talk, "an answer has at most 100 commands and 4 MiB of them") {
    join_and_sync();
    for (int i = 0; i < 120; ++i) core.queue(agent_id, {{"kind", "agent.drain"}});
    CHECK(ids_of(beat(1, 1)).size() == 100);
    CHECK_THROWS_AS(
        core.queue(agent_id, {{"kind", "image.add"}, {"params", {{"source", std::string(256 * 1024, 'x')}}}}),
        std::invalid_argument);
    CHECK_THROWS_AS(core.queue("nobody", {{"kind", "agent.drain"}}), std::invalid_argument);
    CHECK_THROWS_AS(core.queue(agent_id, {{"id", "a b"}}), std::invalid_argument);
    CHECK_THROWS_AS(core.queue(agent_id, {{"id", core.commands().front().id}}), std::invalid_argument);

    core.add_agent("large");
    agent_id = "large";
    REQUIRE(begin().status == 200);
    for (int i = 0; i < 20; ++i)
        core.queue(agent_id, {{"kind", "image.add"}, {"params", {{"source", std::string(255 * 1024, 'x')}}}});
    const auto reply = beat(0, 0);
    CHECK(ids_of(reply).size() < 20);
    CHECK(json::serialize(reply.body).size() <= 4U * 1024 * 1024);
    CHECK(json::serialize(reply.body).size() > 3U * 1024 * 1024);
}

TEST_CASE_METHOD(Talk, "what the contract doesn't allow is refused with its place") {
    join_and_sync();
    const auto ill = [this](json::object more) {
        const auto reply = beat(1, 2, std::move(more));
        CHECK(reply.status == 422);
        CHECK(reply.text("code") == "validation_failed");
        return violation();
    };
    CHECK_THAT(ill({{"extra", 1}}), Catch::Contains("/extra: is not known"));
    CHECK_THAT(ill({{"reason", "boredom"}}), Catch::Contains("/reason: must be one of"));
    CHECK_THAT(ill({{"seq", "2"}}), Catch::Contains("/seq: must be an integer"));
    CHECK_THAT(ill({{"seq", -2}}), Catch::Contains("/seq"));
    CHECK_THAT(ill({{"wall", "2026-02-30T00:00:00Z"}}), Catch::Contains("/wall: must be RFC 3339"));
    CHECK_THAT(ill({{"wall", "2026-01-02T03:04:05+01:00"}}), Catch::Contains("/wall"));
    CHECK_THAT(ill({{"session_id", "a b"}}), Catch::Contains("/session_id"));
    CHECK_THAT(ill({{"delta", delta(false, {})}}), Catch::Contains("/delta: says nothing"));
    CHECK_THAT(ill({{"delta", delta(false, {vm(vm_1)}, {vm_1})}}), Catch::Contains("stands twice"));
    CHECK_THAT(ill({{"delta", delta(true, {}, {vm_1})}}), Catch::Contains("/delta/vms/remove"));
    auto partial = delta(true, {});
    partial.erase("resources");
    CHECK_THAT(ill({{"delta", partial}}), Catch::Contains("/delta/resources: is missing"));
    auto strange = vm(vm_2);
    strange["power"] = "on";
    strange["cpu"] = 1;
    strange.erase("owner");
    const auto found = ill({{"delta", delta(false, {strange})}});
    CHECK_THAT(found, Catch::Contains("/delta/vms/upsert/0/power: must be one of"));
    CHECK_THAT(found, Catch::Contains("/delta/vms/upsert/0/cpu: is not known"));
    CHECK_THAT(found, Catch::Contains("/delta/vms/upsert/0/owner: is missing"));

    const json::object condition{
        {"type", "ClockSkew"}, {"status", "true"}, {"reason", "ahead"}, {"since", "2026-01-02T03:04:05Z"}};
    CHECK_THAT(ill({{"conditions", json::array{condition, condition}}}), Catch::Contains("stands twice"));
    json::array many;
    for (int i = 0; i < 33; ++i) {
        many.push_back(condition);
        many.back().as_object()["type"] = fmt::format("C{}", i);
    }
    CHECK_THAT(ill({{"conditions", many}}), Catch::Contains("/conditions: has 33 items, more than 32"));
    json::array acks;
    for (int i = 0; i < 101; ++i) acks.push_back(ack(fmt::format("c{}", i), "accepted"));
    CHECK_THAT(ill({{"acks", acks}}), Catch::Contains("/acks: has 101 items, more than 100"));

    CHECK(beat(1, 0).status == 422);
    CHECK_THAT(violation(), Catch::Contains("/state_rev: must be at least base_rev"));
    CHECK(beat(1, 1, {{"delta", delta(false, {vm(vm_1)})}}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("/delta: doesn't go with"));
    const auto heartbeat = "/v1/agents/" + agent_id + "/heartbeat";
    CHECK(send(net::Method::post, heartbeat, "{", {.certificate = agent_id}).status == 400);
    CHECK(send(net::Method::post, heartbeat, std::string(33, '[') + std::string(33, ']'), {.certificate = agent_id})
              .status == 400);
    CHECK(send(net::Method::post, heartbeat, std::string(5 * 1024 * 1024, ' '), {.certificate = agent_id}).status ==
          413);
    auto wide = json::serialize(body(1, 1));
    wide.insert(1, 300, ' ');
    CHECK(send(net::Method::post, heartbeat, wide, {.certificate = agent_id}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("a beat with nothing to tell"));
}

TEST_CASE_METHOD(Talk, "facts are taken in order and once") {
    join_and_sync();
    const auto id = core.queue(agent_id, {{"kind", "vm.create"}});
    REQUIRE(ids_of(beat(1, 1)).size() == 1);
    json::object result{{"rev", 6}, {"at", "2026-01-02T03:04:05Z"}, {"kind", "command.result"}};
    for (const auto& member : ack(id, "succeeded")) result.insert_or_assign(member.key(), member.value());
    CHECK(facts({vm_fact(4, "vm.created"), result}).number("ack_rev") == 6);
    // The answer was lost.
    CHECK(facts({vm_fact(4, "vm.created"), result, vm_fact(7, "vm.deleted")}).number("ack_rev") == 7);
    CHECK(core.facts().size() == 3);
    CHECK(core.command(id)->told == "succeeded");
    CHECK(core.violations().empty());

    CHECK(facts({vm_fact(9, "vm.created"), vm_fact(8, "vm.deleted")}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("/items/1/rev: 8 comes after 9"));
    CHECK(facts({vm_fact(8, "vm.deleted")}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("twice in a row"));
    result["rev"] = 8;
    CHECK(facts({result}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("is told twice"));
    CHECK(beat(1, 1, {{"acks", json::array{ack(id, "failed")}}}).status == 422);
    CHECK_THAT(violation(), Catch::Contains("whose result is told as succeeded"));
    CHECK(facts({vm_fact(7, "vm.created")}).number("ack_rev") == 7);
    CHECK_THAT(violation(), Catch::Contains("7 is told otherwise"));
    CHECK(facts({}).status == 422);
    CHECK(core.facts().size() == 3);
}
