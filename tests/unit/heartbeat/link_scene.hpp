// A link and a Core in one hand: no sockets, no loop, and time that moves only with what the link waits for.
#pragma once

#include "heartbeat/https_core.hpp"
#include "heartbeat/link.hpp"
#include "tests/fakes/fake_core.hpp"
#include "tests/fakes/memory_core_link.hpp"
#include "tests/fakes/seeded_random.hpp"
#include "tests/fakes/virtual_clock.hpp"

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

namespace ghost::tests {

class FakeNode final : public heartbeat::Node {
public:
    boost::json::object about() const override { return {{"name", "den"}, {"version", "1.0"}}; }
    boost::json::array features() const override { return {"vms"}; }
    boost::json::object addresses() const override { return {{"local", boost::json::array{local}}}; }
    boost::json::object resources() const override {
        const boost::json::object pool{{"total", 8}, {"reserved", 1}, {"allocated", 0}, {"free", 7}};
        return {{"cpus", pool}, {"memory_mib", pool}, {"disk_bytes", pool}};
    }
    boost::json::array conditions() const override { return conditions_; }
    boost::json::array conditions_;
    std::string local = "192.168.1.2";
};

struct Sent {
    heartbeat::Call call;
    base::Instant at;
    unsigned status;  // 0: no answer
    std::string url;
    boost::json::value body;
};

class LinkScene {
public:
    static constexpr auto agent_id = "node-1";
    static constexpr auto vm_id = "019a2b3c-4d5e-7aaa-8a9b-0c1d2e3f4a5b";

    explicit LinkScene(std::uint64_t seed = 1, fakes::FakeCore::Issue issue = {})
        : random(seed), core_random(seed + 1), core(clock, core_random, std::move(issue), {}) {}

    // An agent that enrolled before; its certificate is good for a day.
    void member(std::chrono::hours life = std::chrono::hours{24}) {
        core.add_agent(agent_id);
        open({agent_id, "", {}, net::CertificateFacts{agent_id, clock.wall(), clock.wall() + life}});
    }
    void open(heartbeat::Membership membership) {
        settings.epoch = ++epochs;
        settings.install_id = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b";
        settings.boot_id = "boot";
        if (settings.url.empty()) settings.url = "https://core.example";
        link.emplace(settings, std::move(membership), heartbeat::Link::Parts{node, view, inbox, outbox, random});
    }

    // Does the next thing within `limit`; nullopt: there is nothing to do so soon, and the time has passed.
    std::optional<Sent> step(base::Instant limit) {
        const auto next = link->next(clock.now(), wall());
        if (const auto* idle = std::get_if<heartbeat::Link::Idle>(&next)) {
            if (idle->until >= limit) {
                clock.advance(std::max(limit - clock.now(), base::Duration::zero()));
                return std::nullopt;
            }
            clock.advance(std::max(idle->until - clock.now(), base::Duration::zero()));
            return step(limit);
        }
        return carry(std::get<heartbeat::CoreCall>(next));
    }
    // All that is sent in `span`.
    std::vector<Sent> pass(base::Duration span) {
        std::vector<Sent> out;
        const auto end = clock.now() + span;
        while (auto sent = step(end)) out.push_back(std::move(*sent));
        return out;
    }
    // Steps until something of this kind was answered well.
    Sent until(heartbeat::Call call, base::Duration limit = std::chrono::minutes{30}) {
        const auto end = clock.now() + limit;
        while (auto sent = step(end))
            if (sent->call == call && sent->status / 100 == 2) return *sent;
        FAIL("no " << heartbeat::name_of(call) << " was answered well");
        throw std::logic_error{"unreachable"};
    }
    void connect() { (void)until(heartbeat::Call::heartbeat); }

    base::Wall wall() const { return clock.wall() + clock_off; }
    std::string state() const { return std::string{heartbeat::name_of(link->status().state)}; }

    // Waits for the next call, which isn't sent yet.
    heartbeat::CoreCall next_call() {
        for (;;) {
            auto next = link->next(clock.now(), wall());
            if (auto* call = std::get_if<heartbeat::CoreCall>(&next)) return std::move(*call);
            const auto until = std::get<heartbeat::Link::Idle>(next).until;
            REQUIRE(until - clock.now() <= std::chrono::hours{24});
            clock.advance(std::max(until - clock.now(), base::Duration::zero()));
        }
    }
    void answer(const heartbeat::CoreCall& call, const base::Result<heartbeat::CoreAnswer>& with) {
        const auto sent = clock.now();
        clock.advance(round_trip);
        (void)link->took(call, with, sent, clock.now(), wall());
    }
    // The VM is news, to be told.
    void show_vm(std::string_view power = "running");

    Sent carry(const heartbeat::CoreCall& call) {
        const auto sent = clock.now();
        Sent record{call.call, sent, 0, call.url, call.body};
        auto answer = ask(call);
        clock.advance(round_trip);
        if (answer) record.status = answer->status;
        auto effects = link->took(call, answer, sent, clock.now(), wall());
        if (effects.enrolled) link->adopt(*effects.enrolled, "hash", clock.now(), wall());
        if (effects.renewed && keeps) link->adopt(*effects.renewed, clock.now(), wall());
        if (effects.renewed && !keeps)
            link->not_adopted({base::Errc::insufficient_storage, "the disk is full"}, clock.now(), wall());
        std::vector<std::string> faults;
        inbox.admit(inbox.take(effects.commands, wall(), faults));
        return record;
    }

    fakes::VirtualClock clock;
    fakes::SeededRandom random;
    fakes::SeededRandom core_random;
    fakes::FakeCore core;
    FakeNode node;
    heartbeat::StateView view;
    heartbeat::Inbox inbox{[](const boost::json::object&) { return false; }};
    heartbeat::Outbox outbox{1};
    heartbeat::LinkSettings settings{};
    std::optional<heartbeat::Link> link;
    std::uint64_t epochs = 0;
    base::Duration round_trip = std::chrono::milliseconds{20};
    base::Duration clock_off{};              // of the agent's wall clock
    bool keeps = true;                       // what Core certifies
    bool reachable = true;                   // Core's addresses lead somewhere
    std::optional<base::Error> fault;        // what sending comes to instead
    std::optional<base::Error> facts_fault;  // of facts alone
    std::set<std::string> dead_urls;

private:
    base::Result<heartbeat::CoreAnswer> ask(const heartbeat::CoreCall& call) {
        if (fault) return base::fail(*fault);
        if (facts_fault && call.call == heartbeat::Call::facts) return base::fail(*facts_fault);
        if (!reachable || dead_urls.contains(call.url))
            return base::fail(base::Errc::source_unavailable, "cannot connect to Core: Connection refused");
        const bool enrols = call.call == heartbeat::Call::enroll;
        const auto* agent = core.agent(call.agent_id);
        const bool expired =
            agent != nullptr && agent->certificate_expires && *agent->certificate_expires < clock.wall();
        auto served =
            core.serve(fakes::request_at_core(call), {.certificate = enrols ? "" : call.agent_id, .expired = expired});
        clock.advance(served.delay);
        if (!served.response || served.cut_after)
            return base::fail(base::Errc::source_unavailable, "the connection was closed");
        return heartbeat::CoreAnswer{served.response->status, heartbeat::retry_after_in(served.response->headers),
                                     served.response->body};
    }
};

[[nodiscard]] inline boost::json::object core_vm(std::string_view id, std::string_view power = "running") {
    return {{"id", id},
            {"name", "web"},
            {"owner", ""},
            {"generation", 1},
            {"power", power},
            {"phase", "ready"},
            {"addresses", boost::json::array{}},
            {"vcpus", 1},
            {"memory_mib", 512},
            {"disk_gib", 1}};
}

inline void LinkScene::show_vm(std::string_view power) {
    if (view.put_vm(vm_id, core_vm(vm_id, power))) link->changed(clock.now());
}

inline std::vector<Sent> only(heartbeat::Call call, const std::vector<Sent>& all) {
    std::vector<Sent> out;
    std::ranges::copy_if(all, std::back_inserter(out), [call](const Sent& s) { return s.call == call; });
    return out;
}

inline std::string text(const boost::json::value& value) { return std::string{value.as_string()}; }

inline void check_core_is_content(const LinkScene& s) {
    for (const auto& violation : s.core.violations()) FAIL_CHECK(violation);
}

inline void check_views_agree(LinkScene& s) {
    const auto& vms = s.core.agent(LinkScene::agent_id)->vms;
    CHECK(vms.size() == s.view.vms().size());
    for (const auto& [id, vm] : s.view.vms()) {
        REQUIRE(vms.contains(id));
        CHECK(vms.at(id) == vm);
    }
}

}  // namespace ghost::tests
