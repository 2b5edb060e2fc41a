#include "tests/fakes/fake_core.hpp"

#include "tests/fakes/seeded_random.hpp"
#include "tests/fakes/virtual_clock.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

using namespace ghost;
using namespace std::chrono_literals;
using fakes::FakeCore;
namespace json = boost::json;

namespace {

constexpr auto* vm_1 = "019a2b3c-4d5e-7aaa-8a9b-0c1d2e3f4a5b";
constexpr auto* vm_2 = "019a2b3c-4d5e-7aaa-8a9b-0c1d2e3f4a5c";
constexpr auto* install = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b";

struct Reply {
    unsigned status = 0;
    json::object body;
    std::optional<std::string> retry_after;
    bool dropped = false;
    base::Duration delay{};
    std::optional<std::size_t> cut_after;

    [[nodiscard]] std::string text(const char* key) const { return std::string{body.at(key).as_string()}; }
    [[nodiscard]] std::int64_t number(const char* key) const { return body.at(key).as_int64(); }
};

// Core, and an agent that is moved by hand.
struct Talk {
    fakes::VirtualClock clock;
    fakes::SeededRandom random;
    FakeCore core{clock, random, [this](const auto& csr, const auto& id, auto life) { return issue(csr, id, life); },
                  FakeCore::Settings{.tokens = {"t0ken"}, .ca = "the CA", .core_urls = {"https://core.example"}}};
    std::string agent_id;
    std::string session_id;
    std::uint64_t seq = 0;

    std::optional<FakeCore::Issued> issue(const std::string& csr, const std::string& id, std::chrono::seconds life) {
        if (csr == "no csr") return std::nullopt;
        return FakeCore::Issued{"certificate of " + id, clock.wall() + life};
    }
    Reply send(net::Method method, const std::string& path, const std::string& body, const FakeCore::Caller& caller) {
        net::Request request;
        request.method = method;
        request.path = path;
        request.body = body;
        const auto served = core.serve(request, caller);
        Reply reply;
        reply.delay = served.delay;
        reply.cut_after = served.cut_after;
        reply.dropped = !served.response;
        if (reply.dropped) return reply;
        reply.status = served.response->status;
        if (const auto value = served.response->headers.find("Retry-After")) reply.retry_after = std::string{*value};
        json::error_code ignored;
        auto value = json::parse(served.response->body, ignored);
        if (value.is_object()) reply.body = value.get_object();
        return reply;
    }
    Reply at(net::Method method, const std::string& what, const json::value& body) {
        return send(method, "/v1/agents/" + agent_id + "/" + what, json::serialize(body), {.certificate = agent_id});
    }
    static json::object resources() {
        const json::object figures{{"total", 8}, {"reserved", 1}, {"allocated", 0}, {"free", 7.5}};
        return {{"cpus", figures}, {"memory_mib", figures}, {"disk_bytes", figures}};
    }
    static json::object vm(const char* id, const char* name = "web-1") {
        return {{"id", id},
                {"name", name},
                {"owner", ""},
                {"generation", 1},
                {"power", "off"},
                {"phase", "ready"},
                {"addresses", json::array{"10.0.0.1"}},
                {"vcpus", 1},
                {"memory_mib", 1024},
                {"disk_gib", 10}};
    }
    static json::object delta(bool full, json::array upsert, json::array remove = {}) {
        json::object made{{"full", full}, {"vms", {{"upsert", std::move(upsert)}, {"remove", std::move(remove)}}}};
        if (full) made["resources"] = resources();
        return made;
    }
    Reply enroll(const char* token = "t0ken", const char* install_id = install, const char* csr = "a csr") {
        return send(net::Method::post, "/v1/agents/enroll",
                    json::serialize(json::object{{"token", token},
                                                 {"install_id", install_id},
                                                 {"name", "den"},
                                                 {"csr", csr},
                                                 {"version", "1"},
                                                 {"resources", resources()},
                                                 {"addresses", {{"local", json::array{"10.0.0.2"}}}}}),
                    {});
    }
    Reply begin(std::uint64_t epoch = 1) {
        auto reply = at(net::Method::put, "session",
                        json::object{{"epoch", epoch},
                                     {"boot_id", "b"},
                                     {"name", "den"},
                                     {"version", "1"},
                                     {"features", json::array{"vms"}},
                                     {"resources", resources()},
                                     {"addresses", {{"local", json::array{}}}}});
        if (reply.status == 200) {
            session_id = reply.text("session_id");
            seq = 0;
        }
        return reply;
    }
    json::object body(std::uint64_t base_rev, std::uint64_t state_rev) {
        return {{"session_id", session_id},
                {"epoch", 1},
                {"seq", ++seq},
                {"reason", "periodic"},
                {"wall", base::rfc3339_ms(clock.wall())},
                {"base_rev", base_rev},
                {"state_rev", state_rev}};
    }
    Reply beat(std::uint64_t base_rev, std::uint64_t state_rev, json::object more = {}) {
        auto made = body(base_rev, state_rev);
        for (const auto& member : more) made.insert_or_assign(member.key(), member.value());
        return at(net::Method::post, "heartbeat", made);
    }
    Reply facts(json::array items) {
        return at(net::Method::post, "facts",
                  json::object{{"session_id", session_id}, {"epoch", 1}, {"items", std::move(items)}});
    }
    json::object ack(const std::string& id, const char* state) {
        json::object made{{"cmd_id", id}, {"state", state}};
        if (state == std::string_view{"failed"} || state == std::string_view{"rejected"})
            made["problem"] = json::object{{"type", "urn:ghost:problem:not_found"},
                                           {"title", "Not found"},
                                           {"status", 404},
                                           {"detail", "no VM web-9"},
                                           {"code", "not_found"},
                                           {"request_id", "r"}};
        return made;
    }
    void join() {
        agent_id = enroll().text("agent_id");
        REQUIRE(begin().status == 200);
    }
    void join_and_sync() {
        join();
        REQUIRE(beat(0, 1, {{"delta", delta(true, {vm(vm_1)})}}).number("ack_rev") == 1);
    }
    FakeCore::Agent& agent() { return *core.agent(agent_id); }
    // What was refused last, and only that.
    std::string violation() {
        if (core.violations().size() != seen + 1) return fmt::format("{} more", core.violations().size() - seen);
        seen = core.violations().size();
        return core.violations().back();
    }
    std::size_t seen = 0;
};

json::object vm_fact(std::uint64_t rev, const char* kind, const char* id = vm_1) {
    return {{"rev", rev},
            {"at", "2026-01-02T03:04:05Z"},
            {"kind", kind},
            {"vm", {{"id", id}, {"name", "web-1"}, {"owner", ""}}}};
}

std::vector<std::string> ids_of(const Reply& reply) {
    std::vector<std::string> ids;
    for (const auto& command : reply.body.at("commands").as_array())
        ids.emplace_back(command.at("id").as_string().c_str());
    return ids;
}

}  // namespace

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
