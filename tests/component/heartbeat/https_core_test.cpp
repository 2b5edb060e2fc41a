// The sender, its link and HTTPS against the stand-in for Core on loopback: real TLS, real time.
#include "heartbeat/https_core.hpp"

#include "heartbeat/sender.hpp"
#include "net/x509.hpp"
#include "tests/fakes/core_server.hpp"
#include "tests/fakes/scratch_folder.hpp"
#include "tests/unit/heartbeat/link_scene.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <catch2/catch.hpp>

#include <fstream>
#include <functional>
#include <sstream>

using namespace std::chrono_literals;
using namespace ghost;
using fakes::CoreServer;
using heartbeat::LinkState;
namespace asio = boost::asio;

namespace {

std::string content(const std::string& path) {
    std::ifstream in{path};
    std::ostringstream out;
    out << in.rdbuf();
    return std::move(out).str();
}

// Keeps in memory what the agent keeps in files and database.
struct Memory final : heartbeat::CoreKeeper {
    Done keep_enrolment(heartbeat::Enrolled answer, std::string token) override {
        certificates.push_back(answer.certificate);
        used_token = std::move(token);
        co_return base::Result<void>{};
    }
    Done keep_certificate(heartbeat::Renewed answer) override {
        certificates.push_back(answer.certificate);
        co_return base::Result<void>{};
    }
    Done keep_urls(std::vector<std::string>) override { co_return base::Result<void>{}; }
    Done keep_commands(std::vector<heartbeat::Command> some) override {
        ++asked;
        while (hangs) co_await clock.sleep_for(20ms);
        for (auto& command : some) commands.push_back(std::move(command));
        co_return base::Result<void>{};
    }
    Done forget_facts(std::uint64_t rev) override {
        facts_gone = rev;
        co_return base::Result<void>{};
    }
    base::SystemClock clock;
    bool hangs = false;
    int asked = 0;
    std::vector<std::string> certificates;
    std::string used_token;
    std::vector<heartbeat::Command> commands;
    std::uint64_t facts_gone = 0;
};

struct Scene {
    fakes::ScratchFolder folder;
    asio::io_context loop{1};
    base::SystemClock clock;
    base::SystemRandom random;
    base::Log log;
    std::optional<CoreServer> server;
    net::TcpEndpoint listen{"127.0.0.1", 0};
    unsigned ttl_s = 1;
    std::chrono::seconds lifetime{3600};

    tests::FakeNode node;
    heartbeat::StateView view;
    heartbeat::Inbox inbox{[](const boost::json::object&) { return false; }};
    heartbeat::Outbox outbox{1};
    Memory memory;
    std::optional<heartbeat::HttpsCore> core;
    std::optional<heartbeat::Link> link;
    std::optional<heartbeat::Sender> sender;
    asio::cancellation_signal stop_sender;
    bool ended = true;

    Scene() = default;
    ~Scene() {
        stop();
        stop_server();
    }
    Scene(const Scene&) = delete;
    Scene& operator=(const Scene&) = delete;

    void start_server() {
        server.emplace(loop.get_executor(), clock, random, log,
                       CoreServer::Options{.dir = folder.path(),
                                           .listen = listen,
                                           .core = {.ttl_s = ttl_s,
                                                    .tokens = {"t0ken"},
                                                    .certificate_lifetime = lifetime,
                                                    .known_by_certificate = true}});
        REQUIRE(server->start());
        listen = net::parse_tcp_endpoint(server->url().substr(8)).value();
    }
    void stop_server() {
        if (!server) return;
        await(server->stop());
        server.reset();
    }
    void start() {
        if (!server) start_server();
        heartbeat::LinkSettings settings{.url = server->url(), .token = "t0ken"};
        settings.install_id = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b";
        settings.epoch = 1;
        settings.boot_id = "boot";
        settings.key = net::make_private_key().value();
        settings.csr = net::make_csr(settings.key, settings.install_id).value();
        core.emplace();
        heartbeat::Credentials credentials{settings.key, "", ""};
        REQUIRE(core->use(credentials, content(server->ca_file())));
        link.emplace(settings, heartbeat::Membership{}, heartbeat::Link::Parts{node, view, inbox, outbox, random});
        sender.emplace(loop.get_executor(), heartbeat::Sender::Parts{*core, memory, *link, inbox, outbox, clock, log},
                       credentials, heartbeat::token_digest("t0ken"));
        ended = false;
        asio::co_spawn(loop, sender->run(),
                       asio::bind_cancellation_slot(stop_sender.slot(), [this](std::exception_ptr) { ended = true; }));
    }
    void stop() {
        if (ended) return;
        stop_sender.emit(asio::cancellation_type::terminal);
        REQUIRE(until([this] { return ended; }));
    }
    bool until(const std::function<bool()>& holds, std::chrono::seconds limit = 60s) {
        const auto deadline = clock.now() + limit;
        loop.restart();
        while (!holds() && clock.now() < deadline) loop.run_one_for(50ms), loop.restart();
        return holds();
    }
    void await(asio::awaitable<void> task) {
        bool over = false;
        asio::co_spawn(loop, std::move(task), [&over](std::exception_ptr) { over = true; });
        REQUIRE(until([&over] { return over; }));
    }
    bool is(LinkState state) const { return link->status().state == state; }
    void connect() {
        start();
        REQUIRE(until([this] { return is(LinkState::connected); }));
    }
    fakes::FakeCore::Agent& agent() { return *server->core().agent(link->status().agent_id); }
    void check_core_is_content() {
        for (const auto& violation : server->core().violations()) FAIL_CHECK(violation);
    }
};

}  // namespace

TEST_CASE_METHOD(Scene, "an agent enrols, beats, does what it is told to take, and says goodbye over TLS", "[https]") {
    connect();
    CHECK(memory.certificates.size() == 1);
    CHECK(memory.used_token == heartbeat::token_digest("t0ken"));
    const auto before = agent().beats;
    CHECK(until([&] { return agent().beats >= before + 3; }));
    (void)server->core().queue(agent().id, {{"id", "c1"}, {"kind", "vm.start"}, {"target", "web"}});
    CHECK(until([&] { return !memory.commands.empty(); }));
    sender->changed();
    CHECK(until([&] { return server->core().command("c1")->state == "accepted"; }));
    outbox.release(
        outbox
            .add(clock.wall(), "vm.created",
                 {{"vm",
                   boost::json::object{{"id", "019a2b3c-4d5e-7aaa-8a9b-0c1d2e3f4a5b"}, {"name", "x"}, {"owner", ""}}}})
            .rev);
    sender->facts_added();
    CHECK(until([&] { return memory.facts_gone == 1; }));
    check_core_is_content();
    stop();
    await(sender->say_goodbye(2s));
    CHECK(agent().left);
    CHECK(agent().reasons.at("shutdown") == 1);
}

TEST_CASE_METHOD(Scene, "a certificate is renewed and shown without a pause", "[https]") {
    lifetime = 6s;
    connect();
    CHECK(until([&] { return agent().certificates >= 3; }));
    CHECK(until([&] { return memory.certificates.size() >= 3; }));
    CHECK(until([&] { return is(LinkState::connected); }));
    check_core_is_content();
}

TEST_CASE_METHOD(Scene, "a certificate that expired meanwhile is renewed with itself", "[https]") {
    lifetime = 4s;
    connect();
    sender->woke();
    stop();
    const auto expires = *agent().certificate_expires;
    REQUIRE(until([&] { return clock.wall() > expires + 1s; }));
    ended = false;
    asio::co_spawn(loop, sender->run(),
                   asio::bind_cancellation_slot(stop_sender.slot(), [this](std::exception_ptr) { ended = true; }));
    const auto before = agent().certificates;
    const auto beats = agent().beats;
    CHECK(until([&] { return agent().certificates > before && agent().beats > beats; }));
}

TEST_CASE_METHOD(Scene, "a Core that isn't Core is not spoken to, and why is told", "[https]") {
    const auto [shown, why] = GENERATE(std::pair{CoreServer::Shown::other_ca, "certificate"},
                                       std::pair{CoreServer::Shown::other_name, "certificate"});
    start_server();
    server->show(shown);
    start();
    REQUIRE(until([this] { return is(LinkState::unreachable); }));
    CHECK(link->status().detail.find(why) != std::string::npos);
    CHECK(server->core().requests() == 0);
    server->show(CoreServer::Shown::own);
    sender->network_changed();
    CHECK(until([this] { return is(LinkState::connected); }));
}

TEST_CASE_METHOD(Scene, "a Core that goes away and comes back is found again", "[https]") {
    connect();
    stop_server();
    CHECK(until([this] { return is(LinkState::unreachable); }));
    start_server();
    CHECK(until([this] { return is(LinkState::connected); }));
    check_core_is_content();
}

TEST_CASE_METHOD(Scene, "connections that are cut are opened again", "[https]") {
    connect();
    for (int i = 0; i < 5; ++i) {
        asio::post(loop, [this] { server->drop_connections(); });
        const auto before = agent().beats;
        CHECK(until([&] { return agent().beats > before; }));
    }
    CHECK(link->status().failures <= 5);
    check_core_is_content();
}

TEST_CASE_METHOD(Scene, "a wake gives up what is under way and looks for Core anew", "[https]") {
    connect();
    server->core().faults.slow = {.probability = 0, .next = 1};
    server->core().faults.slow_ms = 9000;
    const auto before = server->core().requests();
    REQUIRE(until([&] { return server->core().requests() > before; }));
    const auto began = clock.now();
    sender->woke();
    CHECK(until([&] { return agent().reasons.contains("wake"); }));
    CHECK(clock.now() - began < 9s);
}

TEST_CASE_METHOD(Scene, "a disk that hangs holds no beat up", "[https]") {
    connect();
    memory.hangs = true;
    (void)server->core().queue(agent().id, {{"id", "c1"}, {"kind", "vm.start"}, {"target", "web"}});
    REQUIRE(until([this] { return memory.asked == 1; }));
    const auto before = agent().beats;
    CHECK(until([&] { return agent().beats >= before + 4; }));
    CHECK(memory.asked == 1);  // what Core repeats meanwhile isn't heaped up
    CHECK(server->core().command("c1")->acks.empty());
    memory.hangs = false;
    CHECK(until([this] { return server->core().command("c1")->state == "accepted"; }));
    check_core_is_content();
}

TEST_CASE_METHOD(Scene, "a sleep is told of before it comes", "[https]") {
    connect();
    await(sender->tell_of_sleep(2s));
    CHECK(agent().reasons.at("suspend") == 1);
    sender->woke();
    CHECK(until([&] { return agent().reasons.contains("wake"); }));
}

TEST_CASE_METHOD(Scene, "a network that changes while a sleep is told of cuts it not, and is told of after the sleep",
                 "[https]") {
    connect();
    server->core().faults.slow.next = 1;
    server->core().faults.slow_ms = 500;
    asio::co_spawn(loop, sender->tell_of_sleep(2s), asio::detached);
    REQUIRE(until([&] { return agent().reasons.contains("suspend"); }));
    CHECK_FALSE(link->suspend_told());
    sender->network_changed();
    REQUIRE(until([&] { return link->suspend_told(); }));
    sender->network_changed();
    CHECK_FALSE(until([&] { return agent().reasons.contains("network"); }, 3s));
    CHECK(agent().reasons.at("suspend") == 1);
    CHECK(link->status().last_beat_succeeded);
    sender->woke();
    CHECK(until([&] { return agent().reasons.contains("wake"); }));
    check_core_is_content();
}
