// The whole agent beside a tailscaled: what it says of the tailnet, and where it listens.
#include "component/agent/world.hpp"
#include "fakes/certificates.hpp"
#include "fakes/fake_tailscaled.hpp"
#include "fakes/scratch_folder.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/experimental/channel.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <string>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;

namespace {

// A network that changes when the test says so. Changes that nobody waits for are told as one.
class FakeNetwork final : public net::NetworkWatch {
public:
    explicit FakeNetwork(boost::asio::io_context& loop) : changes_(loop, 1) {}
    boost::asio::awaitable<bool> changed() override {
        const auto [error] = co_await changes_.async_receive(boost::asio::as_tuple(boost::asio::use_awaitable));
        co_return !error;
    }
    void change() { (void)changes_.try_send(boost::system::error_code{}); }
    void break_off() { CHECK(changes_.try_send(boost::asio::error::no_descriptors)); }

private:
    boost::asio::experimental::channel<void(boost::system::error_code)> changes_;
};

// The certificates that the API needs to listen at all.
class TlsFiles {
public:
    TlsFiles() {
        folder_.write("ca.pem", ca_.certificate());
        renew();
    }
    void renew() {
        const auto identity = ca_.issue({.common_name = "node", .alternative_names = "DNS:localhost"});
        folder_.write("node.pem", identity.certificate);
        ::chmod(folder_.write("node.key", identity.key).c_str(), 0600);
    }
    [[nodiscard]] agent::TlsConfig config() const {
        return {folder_.path("node.pem"), folder_.path("node.key"), folder_.path("ca.pem")};
    }

private:
    fakes::ScratchFolder folder_;
    fakes::CertificateAuthority ca_{"test CA"};
};

struct Pc : World {
    explicit Pc(std::vector<std::string> listen = {"127.0.0.1:9092", "tailscale:9092"}) {
        tailscaled = &daemon.client;
        network = &changes;
        config.api.listen_addr = std::move(listen);
        config.api.tls = tls.config();
        files.put(fakes::FakeTailscaled::socket, "");
    }
    ~Pc() {
        if (app) shut_down();
    }
    Pc(const Pc&) = delete;
    Pc& operator=(const Pc&) = delete;

    [[nodiscard]] bool listens(const std::string& address) const {
        return server->listens_on(net::parse_tcp_endpoint(address).value());
    }
    // "up", or the status and why.
    std::string check() {
        const auto health = get("/health");
        const auto* const found = health.at("/checks").as_object().if_contains("tailnet");
        if (found == nullptr) return "none";
        const auto& check = found->as_object();
        const auto* const reason = check.if_contains("reason");
        return std::string{check.at("status").as_string()} +
               (reason == nullptr ? "" : ": " + std::string{reason->as_string()});
    }
    std::string shown() { return boost::json::serialize(get("/v1").at("/tailnet")); }

    TlsFiles tls;
    fakes::FakeTailscaled daemon;
    FakeNetwork changes{loop};
};

constexpr auto v4 = "100.64.0.7:9092";
constexpr auto v6 = "[fd7a:115c:a1e0::7]:9092";

}  // namespace

TEST_CASE("the API is served at the tailnet's addresses beside the others, with its TLS and its rules") {
    Pc pc;
    pc.boot();
    for (const auto* const address : {"127.0.0.1:9092", v4, v6}) {
        CAPTURE(address);
        REQUIRE(pc.listens(address));
        CHECK(pc.server->tls_of(net::parse_tcp_endpoint(address).value()) != nullptr);
        CHECK(pc.call_at(address, "/live").status == 200);
        CHECK(pc.call_at(address, "/v1").status == 401);
    }
    CHECK(pc.check() == "up");
    CHECK(pc.shown() == R"({"connected":true,"addresses":["100.64.0.7","fd7a:115c:a1e0::7"],)"
                        R"("dns_name":"node-1.tail0123.ts.net","reason":null})");
}

TEST_CASE("listeners follow the addresses, also when the tailnet comes up late and goes away") {
    Pc pc;
    pc.daemon.backend = "NeedsLogin";
    pc.boot();
    CHECK_FALSE(pc.listens(v4));
    CHECK(pc.listens("127.0.0.1:9092"));
    CHECK(pc.check() == "degraded: not connected: NeedsLogin");
    CHECK(pc.shown() == R"({"connected":false,"addresses":[],"dns_name":null,"reason":"not connected: NeedsLogin"})");

    pc.daemon.backend = "Running";
    pc.pass(agent::Tailnet::interval);
    CHECK(pc.listens(v4));
    CHECK(pc.check() == "up");

    pc.daemon.addresses = {"100.64.0.8"};
    pc.pass(agent::Tailnet::interval);
    CHECK_FALSE(pc.listens(v4));
    CHECK_FALSE(pc.listens(v6));
    CHECK(pc.listens("100.64.0.8:9092"));

    pc.daemon.online = false;  // its peers still reach it
    pc.pass(agent::Tailnet::interval);
    CHECK(pc.listens("100.64.0.8:9092"));
    CHECK(pc.check() == "degraded: not connected: the coordination server is out of reach");

    pc.daemon.backend = "Stopped";
    pc.pass(agent::Tailnet::interval);
    CHECK_FALSE(pc.listens("100.64.0.8:9092"));
    CHECK(pc.check() == "degraded: not connected: Stopped");
    CHECK(pc.listens("127.0.0.1:9092"));
}

TEST_CASE("a change of the network is looked into at once") {
    Pc pc;
    pc.daemon.backend = "Starting";
    pc.boot();
    const auto asked = pc.daemon.client.requests.size();
    pc.settle();
    CHECK(pc.daemon.client.requests.size() == asked);
    pc.daemon.backend = "Running";
    pc.changes.change();
    pc.settle();  // no time passes
    CHECK(pc.daemon.client.requests.size() == asked + 1);
    CHECK(pc.listens(v4));
}

TEST_CASE("of many changes of the network the first is looked into at once, then one a second, and the last one is") {
    Pc pc;
    pc.boot();
    const auto before = pc.daemon.client.requests.size();
    const auto asked = [&] { return pc.daemon.client.requests.size() - before; };
    for (int i = 0; i < 200; ++i) {
        pc.changes.change();
        pc.settle();
        CHECK(asked() == 1);
        pc.pass(4ms);
    }
    pc.daemon.addresses = {"100.64.0.9"};
    pc.changes.change();
    pc.settle();
    CHECK(asked() == 1);
    pc.pass(1s);
    CHECK(asked() == 2);
    CHECK(pc.listens("100.64.0.9:9092"));
    pc.pass(2s);
    CHECK(asked() == 2);
    pc.changes.change();
    pc.settle();  // at once again
    CHECK(asked() == 3);
}

TEST_CASE("a tailnet that is told to look again and again looks once a second") {
    Pc pc;
    boost::asio::cancellation_signal stop;
    agent::Tailnet tailnet{
        pc.loop.get_executor(), {pc.clock, pc.log, pc.files, &pc.daemon.client}, fakes::FakeTailscaled::socket, true};
    boost::asio::co_spawn(pc.loop, tailnet.run(),
                          boost::asio::bind_cancellation_slot(stop.slot(), boost::asio::detached));
    pc.settle();
    CHECK(pc.daemon.client.requests.size() == 1);
    for (int i = 0; i < 200; ++i) {
        tailnet.look_again();
        pc.settle();
        CHECK(pc.daemon.client.requests.size() == 2);
        pc.pass(4ms);
    }
    pc.pass(1s);
    CHECK(pc.daemon.client.requests.size() == 3);
    pc.pass(3s);
    CHECK(pc.daemon.client.requests.size() == 3);
    stop.emit(boost::asio::cancellation_type::terminal);
    pc.settle();
}

TEST_CASE("a watch of the network that breaks is taken up again, and told of once") {
    Pc pc;
    pc.boot();
    pc.changes.break_off();
    pc.pass(31s);
    pc.changes.break_off();
    pc.pass(31s);
    pc.daemon.backend = "Stopped";
    pc.changes.change();
    pc.settle();
    CHECK_FALSE(pc.listens(v4));
    pc.log.flush();
    const auto told = std::ranges::count_if(pc.logged.records(), [](const auto& record) {
        return record.message.starts_with("the network isn't watched");
    });
    CHECK(told == 1);
}

TEST_CASE("tailscaled may be absent, silent or strange, and come back") {
    Pc pc;
    pc.files.erase(fakes::FakeTailscaled::socket);
    pc.boot();
    CHECK(pc.daemon.client.requests.empty());
    CHECK(pc.check() == "degraded: tailscaled isn't there");
    CHECK_THAT(pc.shown(), Catch::Contains("tailscaled isn't there"));

    pc.files.put(fakes::FakeTailscaled::socket, "");
    pc.daemon.answers = false;
    pc.pass(agent::Tailnet::interval);
    CHECK_THAT(pc.check(), Catch::StartsWith("degraded: tailscaled doesn't answer: cannot connect"));
    pc.daemon.answers = true;
    pc.daemon.status = 500;
    pc.pass(agent::Tailnet::interval);
    CHECK(pc.check() == "degraded: tailscaled answers 500");
    pc.daemon.status = 200;
    pc.daemon.backend = "";
    pc.pass(agent::Tailnet::interval);
    CHECK_THAT(pc.check(), Catch::StartsWith("degraded: tailscaled's answer is none"));
    pc.daemon.backend = "Running";
    pc.pass(agent::Tailnet::interval);
    CHECK(pc.check() == "up");
    CHECK(pc.listens(v4));
}

TEST_CASE("a tailscaled that is out of reach, or starts again, keeps its addresses for a while") {
    const auto expected =
        GENERATE("tailscaled isn't there", "tailscaled doesn't answer: cannot connect", "tailscaled answers 503",
                 "tailscaled's answer is none", "not connected: NoState", "not connected: Starting");
    CAPTURE(expected);
    const std::string why{expected};
    Pc pc;
    const auto break_off = [&] {
        if (why.ends_with("there")) pc.files.erase(fakes::FakeTailscaled::socket);
        pc.daemon.answers = !why.contains("doesn't answer");
        if (why.ends_with("503")) pc.daemon.status = 503;
        if (why.ends_with("none")) pc.daemon.backend = "";
        if (why.starts_with("not connected")) pc.daemon.backend = why.substr(why.rfind(' ') + 1);
    };
    const auto mend = [&] {
        pc.files.put(fakes::FakeTailscaled::socket, "");
        pc.daemon.answers = true;
        pc.daemon.status = 200;
        pc.daemon.backend = "Running";
    };
    pc.boot();
    break_off();
    for (int looks = 0; looks < 20; ++looks) {  // it is the time that counts
        pc.changes.change();
        pc.pass(1s);
    }
    CHECK(pc.listens(v4));
    CHECK(pc.listens(v6));
    CHECK_THAT(pc.check(), Catch::StartsWith("degraded: " + why) &&
                               Catch::EndsWith("; it is taken to have its addresses for a while"));
    CHECK_THAT(pc.shown(), Catch::Contains("node-1.tail0123.ts.net"));
    mend();
    pc.pass(agent::Tailnet::interval);
    CHECK(pc.check() == "up");

    break_off();
    pc.pass(agent::Tailnet::patience - agent::Tailnet::interval - 1s);  // since its last good answer
    CHECK(pc.listens(v4));
    pc.pass(2 * agent::Tailnet::interval + 1s);
    CHECK_FALSE(pc.listens(v4));
    CHECK_FALSE(pc.listens(v6));
    CHECK_THAT(pc.check(), Catch::StartsWith("degraded: " + why) && !Catch::Contains("for a while"));
    mend();
    pc.pass(agent::Tailnet::interval);
    CHECK(pc.listens(v4));
    pc.daemon.backend = "Stopped";  // that is an answer
    pc.pass(agent::Tailnet::interval);
    CHECK_FALSE(pc.listens(v4));
}

TEST_CASE("an address that can't be listened on is tried again until it can, and the other is served meanwhile") {
    Pc pc;
    const auto endpoint = net::parse_tcp_endpoint(v4).value();
    pc.daemon.backend = "Starting";
    pc.boot();
    pc.server->refuse(endpoint, "cannot listen on 100.64.0.7:9092: Cannot assign requested address");
    pc.daemon.backend = "Running";
    pc.changes.change();
    pc.settle();
    CHECK_FALSE(pc.listens(v4));
    CHECK(pc.listens(v6));
    CHECK(pc.check() == "degraded: cannot listen on 100.64.0.7:9092: Cannot assign requested address");
    pc.pass(1min);
    CHECK_FALSE(pc.listens(v4));
    pc.server->accept(endpoint);
    pc.pass(agent::TailnetListeners::retry);
    CHECK(pc.listens(v4));
    CHECK(pc.check() == "up");
}

TEST_CASE("certificates that SIGHUP brings reach the tailnet's listeners, those there are and those to come") {
    Pc pc{{"tailscale:9092"}};
    pc.boot();
    const auto at = [&](const char* address) { return pc.server->tls_of(net::parse_tcp_endpoint(address).value()); };
    const auto before = at(v4);
    REQUIRE(before != nullptr);
    pc.tls.renew();
    const auto fresh = agent::App::load_tls(pc.config).value();
    pc.app->reload({pc.config, fresh});
    CHECK(at(v4) == fresh);
    CHECK(fresh != before);
    pc.daemon.addresses = {"100.64.0.9"};
    pc.pass(agent::Tailnet::interval);
    CHECK(at("100.64.0.9:9092") == fresh);
}

TEST_CASE("where nothing listens there, a tailnet is told of when there is one and isn't missed when there is none") {
    Pc pc{{"127.0.0.1:9092"}};
    pc.boot();
    CHECK(pc.check() == "up");
    CHECK_THAT(pc.shown(), Catch::Contains("100.64.0.7"));
    CHECK_FALSE(pc.listens(v4));
    pc.daemon.backend = "NeedsLogin";  // nothing needs it
    pc.pass(agent::Tailnet::interval);
    CHECK(pc.check() == "up");
    CHECK_THAT(pc.shown(), Catch::Contains("not connected: NeedsLogin"));
    pc.files.erase(fakes::FakeTailscaled::socket);
    pc.pass(agent::Tailnet::interval);
    CHECK(pc.check() == "none");
    CHECK(pc.shown() == "null");
}

TEST_CASE("without certificates nothing is served at the tailnet either") {
    Pc pc;
    pc.config.api.tls = {};
    pc.boot();
    CHECK_FALSE(pc.listens(v4));
    CHECK(pc.check() == "up");
    CHECK(pc.get("/health").text("/checks/api/status") == "degraded");
}

TEST_CASE("an agent that stops opens no more listeners") {
    Pc pc;
    pc.boot();
    pc.daemon.addresses = {"100.64.0.9"};
    pc.changes.change();
    pc.shut_down();
    CHECK(pc.server->is_shut_down());
    CHECK_FALSE(pc.server->listens_on(net::parse_tcp_endpoint("100.64.0.9:9092").value()));
}
