// The stand-in for Core, and an agent that is moved by hand.
#pragma once

#include "tests/fakes/fake_core.hpp"
#include "tests/fakes/seeded_random.hpp"
#include "tests/fakes/virtual_clock.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace ghost::tests {

using namespace std::chrono_literals;
using fakes::FakeCore;
namespace json = boost::json;

inline constexpr auto* vm_1 = "019a2b3c-4d5e-7aaa-8a9b-0c1d2e3f4a5b";
inline constexpr auto* vm_2 = "019a2b3c-4d5e-7aaa-8a9b-0c1d2e3f4a5c";
inline constexpr auto* install = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b";

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

inline json::object vm_fact(std::uint64_t rev, const char* kind, const char* id = vm_1) {
    return {{"rev", rev},
            {"at", "2026-01-02T03:04:05Z"},
            {"kind", kind},
            {"vm", {{"id", id}, {"name", "web-1"}, {"owner", ""}}}};
}

inline std::vector<std::string> ids_of(const Reply& reply) {
    std::vector<std::string> ids;
    for (const auto& command : reply.body.at("commands").as_array())
        ids.emplace_back(command.at("id").as_string().c_str());
    return ids;
}

}  // namespace ghost::tests
