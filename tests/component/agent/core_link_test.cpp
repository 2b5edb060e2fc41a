// A whole agent and a Core: what Core sees, what it asks for, and what a crash makes of it.
#include "component/agent/world.hpp"
#include "fakes/certificates.hpp"
#include "fakes/fake_core.hpp"
#include "fakes/memory_core_link.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>

using namespace std::chrono_literals;
using namespace ghost;
using namespace ghost::tests;
namespace json = boost::json;

namespace {

struct CoreWorld : World {
    CoreWorld() {
        config.agent.api_url = "https://core.example";
        config.agent.name = "den";
        config.core.enroll_token = "t0ken";
        core = &link;
        installation = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b";
        local_addresses = {"192.168.1.20"};
        clock.set_wall(start);  // certificates are real
        files.put(boot_id_file, "first\n");
    }
    ~CoreWorld() {
        if (app) shut_down();
        for (const auto& violation : stand_in.violations()) FAIL_CHECK(violation);
    }
    CoreWorld(const CoreWorld&) = delete;
    CoreWorld& operator=(const CoreWorld&) = delete;

    std::optional<fakes::FakeCore::Issued> issue(const std::string& csr, const std::string& id,
                                                 std::chrono::seconds life) {
        const auto from = std::chrono::duration_cast<std::chrono::seconds>(clock.wall() - start);
        auto pem =
            ca.sign(csr, {.common_name = id, .valid_from_s = from.count(), .valid_until_s = (from + life).count()});
        if (!pem) return std::nullopt;
        return fakes::FakeCore::Issued{*std::move(pem), clock.wall() + life};
    }
    // The one agent that Core knows.
    fakes::FakeCore::Agent& node() {
        REQUIRE(stand_in.agents().size() == 1);
        return *stand_in.agent(stand_in.agents().begin()->first);
    }
    std::string command(json::object what) {
        pass(1s);
        return stand_in.queue(node().id, std::move(what));
    }
    const fakes::FakeCore::Command& outcome(const std::string& id, base::Duration limit = 3min) {
        for (base::Duration waited{}; waited < limit && !stand_in.command(id)->ended(); waited += 1s) pass(1s);
        return *stand_in.command(id);
    }
    std::string core_state() { return get("/v1").text("/core/state"); }

    base::Wall start = std::chrono::system_clock::now();
    fakes::SeededRandom core_random{7};
    fakes::CertificateAuthority ca{"Core's CA"};
    fakes::FakeCore stand_in{clock,
                             core_random,
                             [this](const auto& csr, const auto& id, auto life) { return issue(csr, id, life); },
                             {.ttl_s = 20, .tokens = {"t0ken"}, .ca = ca.certificate()}};
    fakes::MemoryCoreLink link{stand_in, clock};
};

json::object create_command(std::string_view name) {
    return {{"kind", "vm.create"}, {"params", vm_body(std::string{name})}};
}

}  // namespace

TEST_CASE_METHOD(CoreWorld, "an agent with a token joins, and Core sees what it has", "[core]") {
    boot();
    pass(2s);
    CHECK(core_state() == "connected");
    add_image();
    const auto id = create_vm();
    pass(3s);
    REQUIRE(node().vms.size() == 1);
    const auto& vm = node().vms.at(id);
    CHECK(vm.at("name") == "web");
    CHECK(vm.at("power") == "running");
    CHECK(vm.at("phase") == "ready");
    CHECK(node().name == "den");
    CHECK(node().addresses.at("local") == json::array{"192.168.1.20"});
    const auto resources = get("/v1/resources");
    for (const auto* part : {"total", "reserved", "allocated", "free"})
        CHECK(node().resources.at("memory_mib").at(part) == resources.at("/memory_mib").at(part));
    CHECK(get("/v1").text("/agent_id") == node().id);
    CHECK(files.exists("/var/lib/ghost/core/key.pem"));
    CHECK(files.find("/var/lib/ghost/core/key.pem")->mode == 0600);

    call(net::Method::del, "/v1/vms/web?wait=60");
    pass(3s);
    CHECK(node().vms.empty());
    std::vector<std::string> kinds;
    for (const auto& [agent, fact] : stand_in.facts()) kinds.push_back(fact.kind);
    CHECK(kinds == std::vector<std::string>{"vm.created", "vm.deleted"});
}

TEST_CASE_METHOD(CoreWorld, "what an agent is to Core survives its restarts", "[core]") {
    boot();
    pass(2s);
    const auto id = node().id;
    shut_down();
    CHECK(node().left);
    boot();
    pass(2s);
    CHECK(core_state() == "connected");
    CHECK(node().id == id);
    CHECK(node().certificates == 1);
}

TEST_CASE_METHOD(CoreWorld, "Core's commands pass the same door as REST", "[core]") {
    boot();
    add_image();
    const auto made = command(create_command("web"));
    CHECK(outcome(made).state == "succeeded");
    const auto operation = get("/v1/operations/" + outcome(made).operation);
    CHECK(operation.text("/requested_by") == "core:ghost-core");
    CHECK(operation.text("/request_id") == made);
    CHECK(get("/v1/vms/web").text("/status/power") == "running");

    CHECK(outcome(command({{"kind", "stop_vm"}, {"target", "web"}, {"params", json::object{{"force", true}}}})).state ==
          "succeeded");
    CHECK(get("/v1/vms/web").text("/status/power") == "off");
    CHECK(outcome(command({{"kind", "vm.start"}, {"target", get("/v1/vms/web").text("/id")}})).state == "succeeded");

    const auto nobody = outcome(command({{"kind", "vm.start"}, {"target", "nobody"}}));
    CHECK(nobody.state == "rejected");
    CHECK(nobody.problem->at("code") == "not_found");
    const auto faulty = outcome(command({{"kind", "vm.create"}, {"params", json::object{{"name", "No"}}}}));
    CHECK(faulty.state == "rejected");
    CHECK(faulty.problem->at("code") == "validation_failed");
    CHECK(outcome(command({{"kind", "vm.delete"}, {"target", "web"}})).state == "succeeded");
    CHECK(get("/v1/vms/web").status == 404);
    CHECK(stand_in.facts().size() == 8);  // six results, one VM made, one gone
}

TEST_CASE_METHOD(CoreWorld, "commands for one VM wait for each other, a forced stop doesn't", "[core]") {
    boot();
    add_image();
    const auto made = command(create_command("web"));
    const auto stopped = command({{"kind", "vm.stop"}, {"target", "web"}, {"params", json::object{{"force", true}}}});
    const auto started = command({{"kind", "vm.start"}, {"target", "web"}});
    const auto deleted = command({{"kind", "vm.delete"}, {"target", "web"}});
    CHECK(outcome(deleted).state == "succeeded");
    CHECK(outcome(made).ended());
    CHECK(outcome(stopped).ended());
    CHECK(outcome(started).ended());
    CHECK(get("/v1/vms").at("/items").as_array().empty());
}

TEST_CASE_METHOD(CoreWorld, "a command is judged by its generation and by Core's clock", "[core]") {
    boot();
    add_image();
    (void)create_vm();
    const auto generation = get("/v1/vms/web").at("/generation").as_int64();
    const auto stale = outcome(command({{"kind", "vm.suspend"}, {"target", "web"}, {"if_generation", generation + 1}}));
    CHECK(stale.state == "rejected");
    CHECK(stale.problem->at("code") == "precondition_failed");
    const auto late =
        outcome(command({{"kind", "vm.pause"}, {"target", "web"}, {"not_after", base::rfc3339(clock.wall() - 1min)}}));
    CHECK(late.state == "rejected");
    CHECK(late.problem->at("code") == "deadline_exceeded");
    CHECK(get("/v1/vms/web").text("/status/power") == "running");
    const auto good = outcome(command({{"kind", "vm.pause"},
                                       {"target", "web"},
                                       {"if_generation", generation},
                                       {"not_after", base::rfc3339(clock.wall() + 1min)}}));
    CHECK(good.state == "succeeded");
}

TEST_CASE_METHOD(CoreWorld, "our clock may be wrong by hours: Core's decides", "[core]") {
    stand_in.faults.clock_off_s = GENERATE(-7200, 7200);
    boot();
    add_image();
    (void)create_vm();
    pass(25s);
    const auto core_time = clock.wall() + std::chrono::seconds{stand_in.faults.clock_off_s};
    CHECK(outcome(command({{"kind", "vm.pause"}, {"target", "web"}, {"not_after", base::rfc3339(core_time + 2min)}}))
              .state == "succeeded");
    CHECK(outcome(command({{"kind", "vm.resume"}, {"target", "web"}, {"not_after", base::rfc3339(core_time - 2min)}}))
              .state == "rejected");
    const auto& conditions = node().conditions;
    CHECK(std::ranges::any_of(conditions, [](const auto& c) { return c.at("type") == "ClockSkew"; }));
}

TEST_CASE_METHOD(CoreWorld, "after a restart, too, Core's clock is waited for before a command is judged too late",
                 "[core]") {
    stand_in.faults.clock_off_s = GENERATE(-7200, 7200);
    boot();
    add_image();
    (void)create_vm();
    pass(25s);
    hypervisor->drop_link("gone");  // so that neither can begin before the agent dies
    pass(2s);
    const auto core_time = clock.wall() + std::chrono::seconds{stand_in.faults.clock_off_s};
    const auto good = command({{"kind", "vm.pause"},
                               {"target", "web"},
                               {"not_after", base::rfc3339(core_time + 10min)},
                               {"deadline_s", 900}});
    const auto late = command({{"kind", "vm.suspend"},
                               {"target", "web"},
                               {"not_after", base::rfc3339(core_time + 45s)},
                               {"deadline_s", 900}});
    pass(25s);
    CHECK(stand_in.command(good)->state == "accepted");
    CHECK(stand_in.command(late)->state == "accepted");
    link.way = fakes::MemoryCoreLink::Way::refused;
    crash();
    pass(60s);
    boot();
    pass(5s);
    link.way = fakes::MemoryCoreLink::Way::open;
    CHECK(outcome(good).state == "succeeded");
    CHECK(outcome(late).state == "rejected");
    CHECK(outcome(late).problem->at("code") == "deadline_exceeded");
}

TEST_CASE_METHOD(CoreWorld, "commands for one VM keep their order over a restart", "[core]") {
    boot();
    add_image();
    (void)create_vm();
    hypervisor->on_shutdown(get("/v1/vms/web").text("/id"), fakes::FakeHypervisor::Shutdown::ignore);
    const auto stop = command({{"kind", "vm.stop"}, {"target", "web"}, {"params", json::object{{"timeout_s", 300}}}});
    const auto start = command({{"kind", "vm.start"}, {"target", get("/v1/vms/web").text("/id")}});
    pass(25s);
    CHECK(stand_in.command(stop)->state == "running");
    crash();
    boot();
    CHECK(outcome(start, 10min).state == "succeeded");
    CHECK(stand_in.command(stop)->state == "succeeded");
    CHECK(get("/v1/vms/web").text("/status/power") == "running");
}

TEST_CASE_METHOD(CoreWorld, "credentials that are mended are used without a restart", "[core]") {
    files.put_directory("/var/lib/ghost/core");
    files.put("/var/lib/ghost/core/key.pem", "no key", 0600);
    boot();
    pass(2s);
    CHECK(core_state() == "failed");
    files.erase("/var/lib/ghost/core/key.pem");
    pass(30s);
    CHECK(core_state() == "connected");
}

TEST_CASE_METHOD(CoreWorld,
                 "a database that takes nothing holds no beat up, and no command is taken that it doesn't hold",
                 "[core]") {
    boot();
    add_image();
    (void)create_vm();
    pass(25s);
    store.fail_always(base::Error{base::Errc::insufficient_storage, "the disk is full"});
    const auto pause = command({{"kind", "vm.pause"}, {"target", "web"}});
    const auto before = node().beats;
    pass(3min);
    CHECK(node().beats - before >= 9);
    CHECK(stand_in.presence(node()) == "online");
    CHECK(stand_in.command(pause)->acks.empty());
    store.fail_always({});
    CHECK(outcome(pause).state == "succeeded");
}

TEST_CASE_METHOD(CoreWorld, "a command is done once, however often it comes and whenever the agent dies", "[core]") {
    boot();
    add_image();
    stand_in.faults.doubled.probability = 1;
    stand_in.faults.delivered_again.probability = 1;
    stand_in.faults.drop_reply.probability = 0.3;
    const auto made = command(create_command("web"));
    for (int i = 0; i < 6; ++i) {
        pass(std::chrono::milliseconds{230 * (i + 1)});
        crash();
        boot();
    }
    CHECK(outcome(made, 10min).state == "succeeded");
    std::size_t creates = 0;
    const auto operations = get("/v1/operations");
    for (const auto& op : operations.at("/items").as_array()) creates += op.at("kind") == "vm.create" ? 1U : 0U;
    CHECK(creates == 1);
    CHECK(hypervisor->all().size() == 1);
    stand_in.faults = {};
    pass(2min);
    CHECK(core_state() == "connected");
    std::size_t results = 0;
    for (const auto& [agent, fact] : stand_in.facts()) results += fact.kind == "command.result" ? 1U : 0U;
    CHECK(results == 1);
}

TEST_CASE_METHOD(CoreWorld, "the end of a command is told once it is kept", "[core]") {
    boot();
    add_image();
    (void)create_vm();
    const auto started = command({{"kind", "vm.start"}, {"target", "nobody"}});
    store.on_commit([&](const storage::Changes& changes) {
        const auto* row = std::get_if<storage::CommandRow>(&changes.front());
        if (row != nullptr && row->document.contains("accepted"))
            store.fail_always(base::Error{base::Errc::insufficient_storage, "the disk is full"});
    });
    // What isn't kept would be another end for the next agent.
    pass(30s);
    CHECK(stand_in.command(started)->state == "accepted");
    store.on_commit({});
    store.fail_always({});
    CHECK(outcome(started).state == "rejected");
    pass(3s);
    CHECK(stand_in.command(started)->told == "rejected");
}

TEST_CASE_METHOD(CoreWorld, "a command that runs is told so after a restart, too, when that couldn't be kept",
                 "[core]") {
    boot();
    add_image();
    (void)create_vm();
    hypervisor->on_shutdown(get("/v1/vms/web").text("/id"), fakes::FakeHypervisor::Shutdown::ignore);
    hypervisor->hang("power_off");
    const auto stop = command({{"kind", "vm.stop"}, {"target", "web"}, {"params", json::object{{"timeout_s", 300}}}});
    pass(25s);
    CHECK(stand_in.command(stop)->state == "running");
    store.on_commit([&](const storage::Changes& changes) {
        if (std::holds_alternative<storage::OperationRow>(changes.front()))
            store.fail_always(base::Error{base::Errc::insufficient_storage, "the disk is full"});
    });
    const auto force = command({{"kind", "vm.stop"}, {"target", "web"}, {"params", json::object{{"force", true}}}});
    pass(25s);
    CHECK(stand_in.command(force)->state == "running");
    REQUIRE(store.commands().at(force).document.contains("accepted"));
    crash();
    store.on_commit({});
    store.fail_always({});
    before_boot = [](fakes::FakeHypervisor& fresh) { fresh.hang("domains"); };
    boot();
    pass(25s);
    CHECK(stand_in.command(force)->state == "running");
    hypervisor->release("domains");
    CHECK(outcome(stop, 10min).ended());
    CHECK(outcome(force, 10min).ended());
}

TEST_CASE_METHOD(CoreWorld, "what a damaged database left of a command's beginning is not begun again", "[core]") {
    boot();
    add_image();
    (void)create_vm();
    pass(2s);
    shut_down();
    heartbeat::Command old;
    old.id = "c-old";
    old.kind = "vm.delete";
    old.target = "web";
    old.has_params = true;
    old.received = clock.wall();
    storage::Changes copy;
    copy.emplace_back(storage::CommandRow{old.id, base::to_unix_ms(old.received), false, heartbeat::to_document(old)});
    copy.emplace_back(storage::FactRow{std::string{storage::from_copy_fact}, "1"});
    store.reopen();
    boost::asio::co_spawn(loop, store.commit(std::move(copy)), boost::asio::detached);
    settle();
    boot();
    pass(1min);
    CHECK(get("/v1/vms/web").status == 200);
    CHECK(store.facts().at(std::string{storage::from_copy_fact}).empty());
    crash();
    boot();
    // Core, which hasn't heard of an end, is told one.
    CHECK(outcome(command({{"id", "c-old"}, {"kind", "vm.delete"}, {"target", "web"}})).state == "failed");
    CHECK(get("/v1/vms/web").status == 200);
}

TEST_CASE_METHOD(CoreWorld, "a secret of a command is in no database", "[core]") {
    boot();
    add_image();
    auto body = vm_body("web");
    body.at("spec").as_object()["cloud_init"] = {{"user_data", "#cloud-config\npassword: hunter2\n"}};
    std::string seen;
    store.on_commit([&seen](const storage::Changes& changes) {
        for (const auto& change : changes) {
            if (const auto* row = std::get_if<storage::CommandRow>(&change)) seen += row->document;
            if (const auto* row = std::get_if<storage::OutboxRow>(&change)) seen += row->document;
        }
    });
    CHECK(outcome(command({{"kind", "vm.create"}, {"params", body}})).state == "succeeded");
    store.on_commit({});
    CHECK(seen.find("vm.create") != std::string::npos);
    CHECK(seen.find("hunter2") == std::string::npos);
    CHECK(get("/v1/vms/web").text("/status/power") == "running");
}

TEST_CASE_METHOD(CoreWorld, "Core is told of a drain, and may ask for one", "[core]") {
    boot();
    add_image();
    CHECK(outcome(command({{"kind", "agent.drain"}, {"params", json::object{{"reason", "kernel update"}}}})).state ==
          "succeeded");
    pass(3s);
    const auto& conditions = node().conditions;
    const auto drained = std::ranges::find_if(conditions, [](const auto& c) { return c.at("type") == "Draining"; });
    REQUIRE(drained != conditions.end());
    CHECK(drained->at("message") == "kernel update");
    const auto refused = outcome(command(create_command("web")));
    CHECK(refused.state == "rejected");
    CHECK(refused.problem->at("code") == "draining");
    CHECK(outcome(command({{"kind", "agent.undrain"}})).state == "succeeded");
    CHECK(outcome(command(create_command("web"))).state == "succeeded");
}

TEST_CASE_METHOD(CoreWorld, "no beat is missed while the hypervisor hangs, and Core is told that it does", "[core]") {
    boot();
    pass(2s);
    const auto before = node().beats;
    hypervisor->drop_link("it hangs");
    pass(5min);
    CHECK(node().beats - before >= 15);
    CHECK(stand_in.presence(node()) == "online");
    CHECK(std::ranges::any_of(node().conditions, [](const auto& c) {
        return c.at("type") == "HypervisorReady" && c.at("status") == "false";
    }));
}

TEST_CASE_METHOD(CoreWorld, "a command waits for a hypervisor that is away, as long as it may", "[core]") {
    boot();
    add_image();
    (void)create_vm();
    hypervisor->drop_link("gone");
    pass(2s);
    const auto patient = command({{"kind", "vm.pause"}, {"target", "web"}, {"deadline_s", 600}});
    const auto hasty = command({{"kind", "vm.suspend"}, {"target", "web"}, {"deadline_s", 10}});
    pass(2min);
    CHECK_FALSE(stand_in.command(patient)->ended());
    hypervisor->restore_link();
    CHECK(outcome(patient).state == "succeeded");
    const auto& gave_up = outcome(hasty);
    CHECK(gave_up.state == "rejected");
    CHECK(gave_up.problem->at("code") == "deadline_exceeded");  // it waited for the one before
}

TEST_CASE_METHOD(CoreWorld, "an agent whose Core is away serves, says so, and catches up", "[core]") {
    link.way = GENERATE(fakes::MemoryCoreLink::Way::refused, fakes::MemoryCoreLink::Way::silent);
    boot();
    add_image();
    (void)create_vm();
    pass(5min);
    CHECK(core_state() == "unreachable");
    const auto health = get("/health");
    CHECK(health.status == 200);
    CHECK(health.text("/checks/core/status") == "degraded");
    link.way = fakes::MemoryCoreLink::Way::open;
    pass(8min);
    CHECK(core_state() == "connected");
    CHECK(node().vms.size() == 1);
    CHECK(stand_in.facts().size() == 1);
    CHECK(get("/health").text("/checks/core/status") == "up");
}

TEST_CASE_METHOD(CoreWorld, "a certificate is renewed without a restart and kept", "[core]") {
    stand_in.settings.certificate_lifetime = 600s;
    boot();
    pass(2s);
    const auto first = files.find("/var/lib/ghost/core/cert.pem")->bytes;
    pass(6min);
    CHECK(node().certificates == 2);
    CHECK(files.find("/var/lib/ghost/core/cert.pem")->bytes != first);
    CHECK(core_state() == "connected");
}

TEST_CASE_METHOD(CoreWorld, "a certificate of the operator's needs no enrolment", "[core]") {
    const auto identity = ca.issue({.common_name = "den-7"});
    config.core.enroll_token = "";
    config.core.tls.cert = "/etc/ghost/core.crt";
    config.core.tls.key = "/etc/ghost/core.key";
    files.put(config.core.tls.cert, identity.certificate, 0644);
    files.put(config.core.tls.key, identity.key, 0600);
    stand_in.add_agent("den-7");
    boot();
    pass(2s);
    CHECK(core_state() == "connected");
    CHECK(get("/v1").text("/agent_id") == "den-7");
    CHECK_FALSE(files.exists("/var/lib/ghost/core/key.pem"));

    const auto ends = get("/v1").text("/core/certificate_expires_at");
    const auto later = ca.issue({.common_name = "den-7", .valid_until_s = 9 * 86400});
    files.put(config.core.tls.cert, later.certificate, 0644);
    files.put(config.core.tls.key, later.key, 0600);
    app->reload({config, net::TlsContext{}});
    pass(2s);
    const auto new_end = get("/v1").text("/core/certificate_expires_at");
    CHECK(new_end > ends);
    const auto other = ca.issue({.common_name = "den-8", .valid_until_s = 5 * 86400});
    files.put(config.core.tls.cert, other.certificate, 0644);
    files.put(config.core.tls.key, other.key, 0600);
    app->reload({config, net::TlsContext{}});
    pass(2s);
    CHECK(core_state() == "connected");
    CHECK(get("/v1").text("/core/certificate_expires_at") == new_end);
}

TEST_CASE_METHOD(CoreWorld, "a certificate of the operator's that names no agent is refused with a sentence",
                 "[core]") {
    const auto identity = ca.issue({.common_name = "Den's PC"});
    config.core.tls.cert = "/etc/ghost/core.crt";
    config.core.tls.key = "/etc/ghost/core.key";
    files.put(config.core.tls.cert, identity.certificate, 0644);
    files.put(config.core.tls.key, identity.key, 0600);
    boot();
    pass(2s);
    CHECK(core_state() == "failed");
    CHECK(get("/v1").text("/core/reason").starts_with("core.tls_cert, core.tls_key: the certificate's CN"));
    CHECK(link.sent() == 0);
}

TEST_CASE_METHOD(CoreWorld, "credentials that can't be used are said, and the agent serves", "[core]") {
    files.put_directory("/var/lib/ghost/core");
    files.put("/var/lib/ghost/core/key.pem", "no key", 0600);
    boot();
    pass(2s);
    CHECK(core_state() == "failed");
    CHECK(get("/health").text("/checks/core/reason").starts_with("/var/lib/ghost/core: "));
    CHECK(get("/v1/vms").status == 200);
}
