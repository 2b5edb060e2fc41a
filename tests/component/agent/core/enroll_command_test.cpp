// ghost-agent enroll against a Core on loopback, with real files.
#include "agent/enroll_command.hpp"

#include "agent/config/config_loader.hpp"
#include "agent/daemon.hpp"
#include "agent/state_directory.hpp"
#include "base/log.hpp"
#include "fakes/certificates.hpp"
#include "fakes/core_server.hpp"
#include "fakes/fake_tailscaled.hpp"
#include "fakes/scratch_folder.hpp"
#include "heartbeat/enrolment.hpp"
#include "net/x509.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <filesystem>
#include <future>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace ghost;
namespace asio = boost::asio;
namespace json = boost::json;

namespace {

// The stand-in for Core with a loop on a thread of its own. It takes the token "t0ken".
class RunningCore {
public:
    RunningCore() {
        if (auto started = server_.start(); !started) FAIL(started.error().detail);
        thread_ = std::thread{[this] { loop_.run(); }};
    }
    ~RunningCore() {
        asio::co_spawn(loop_, server_.stop(), asio::use_future).get();
        work_.reset();
        thread_.join();
    }
    RunningCore(const RunningCore&) = delete;
    RunningCore& operator=(const RunningCore&) = delete;

    [[nodiscard]] std::string url() const { return server_.url(); }
    [[nodiscard]] std::string ca_file() const { return server_.ca_file(); }
    // Of the one agent that it knows.
    [[nodiscard]] fakes::FakeCore::Agent agent() {
        return look([](fakes::FakeCore& core) {
            if (core.agents().size() != 1) throw std::runtime_error{"not one agent"};
            return core.agents().begin()->second;
        });
    }
    [[nodiscard]] std::uint64_t requests() {
        return look([](const fakes::FakeCore& core) { return core.requests(); });
    }
    [[nodiscard]] std::vector<std::string> violations() {
        return look([](const fakes::FakeCore& core) { return core.violations(); });
    }

private:
    // On the loop.
    template <class Look>
    std::invoke_result_t<Look, fakes::FakeCore&> look(Look work) {
        std::packaged_task<std::invoke_result_t<Look, fakes::FakeCore&>()> task{
            [this, &work] { return work(server_.core()); }};
        asio::post(loop_, [&task] { task(); });
        return task.get_future().get();
    }

    fakes::ScratchFolder folder_;
    asio::io_context loop_{1};
    asio::executor_work_guard<asio::io_context::executor_type> work_{loop_.get_executor()};
    base::Log log_;
    base::SystemClock clock_;
    base::SystemRandom random_;
    fakes::CoreServer server_{
        loop_.get_executor(), clock_, random_, log_, {.dir = folder_.path(), .core = {.tokens = {"t0ken"}}}};
    std::thread thread_;
};

struct Outcome {
    int code = 0;
    std::string out;
    std::string error;
};

// A node with a configuration and a state directory of its own.
struct Node {
    fakes::ScratchFolder folder;
    std::string state = folder.path("state");
    std::string config = folder.write("agent.yaml", "state_dir: " + state + "\n");

    [[nodiscard]] Outcome run(std::vector<std::string> words, const std::string& in = {}) const {
        words.insert(words.end(), {"--config", config});
        std::istringstream input{in};
        std::ostringstream out;
        std::ostringstream error;
        const int code = agent::run_enroll(std::move(words), {input, out, error, {}});
        return {code, out.str(), error.str()};
    }
    [[nodiscard]] Outcome join(const RunningCore& core, const std::string& token = "t0ken") const {
        return run({"--core", core.url(), "--token", token, "--ca", core.ca_file()});
    }
    [[nodiscard]] std::string read(const std::string& name) const { return folder.read("state/" + name); }
    [[nodiscard]] json::object identity() const { return json::parse(read("identity.json")).as_object(); }
    [[nodiscard]] unsigned mode(const std::string& name) const {
        struct stat found{};
        REQUIRE(::stat((state + "/" + name).c_str(), &found) == 0);
        return found.st_mode & 0777U;
    }
    [[nodiscard]] agent::Config settings() const {
        auto loaded = agent::load_config({.file = config, .environment = {}});
        if (!loaded) FAIL(loaded.error().sentences.at(0));
        return *loaded;
    }
};

// Answers one request at a Unix socket.
class OneAnswer {
public:
    OneAnswer(const std::string& path, std::string body)
        : acceptor_(loop_, asio::local::stream_protocol::endpoint{path}), thread_([this, text = std::move(body)] {
              auto peer = acceptor_.accept();
              std::string request;
              asio::read_until(peer, asio::dynamic_buffer(request), "\r\n\r\n");
              asio::write(peer, asio::buffer("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " +
                                             std::to_string(text.size()) + "\r\nConnection: close\r\n\r\n" + text));
          }) {}
    ~OneAnswer() { thread_.join(); }
    OneAnswer(const OneAnswer&) = delete;
    OneAnswer& operator=(const OneAnswer&) = delete;

private:
    asio::io_context loop_;
    asio::local::stream_protocol::acceptor acceptor_;
    std::thread thread_;
};

}  // namespace

TEST_CASE("a node joins: credentials and identity are kept and the configuration says where Core is") {
    RunningCore core;
    const Node node;
    const auto done =
        node.run({"--core", core.url() + "/", "--token", "t0ken", "--ca", core.ca_file(), "--name", "den \"pc\""});
    CAPTURE(done.error);
    REQUIRE(done.code == agent::exit_ok);
    CHECK(done.error.empty());
    CHECK(done.out.starts_with("Enrolled with " + core.url() + " as " + core.agent().id + ".\n"));
    CHECK(done.out.find("systemctl start ghost-agent") != std::string::npos);
    CHECK(done.out.find("t0ken") == std::string::npos);

    CHECK(node.mode("core") == 0700);
    CHECK(node.mode("core/key.pem") == 0600);
    CHECK(node.mode("identity.json") == 0600);
    CHECK(net::check_pair(node.read("core/cert.pem"), node.read("core/key.pem")));
    CHECK(net::read_certificate(node.read("core/ca.pem"))->common_name == "Ghost Core stand-in");
    CHECK(node.identity().at("agent_id").as_string() == core.agent().id);
    CHECK(node.identity().at("used_token").as_string() == heartbeat::token_digest("t0ken"));

    const auto settings = node.settings();
    CHECK(settings.agent.api_url == core.url());
    CHECK(settings.agent.name == "den \"pc\"");
    CHECK(settings.core.tls.ca == core.ca_file());

    const auto known = core.agent();
    CHECK(known.install_id == std::string{node.identity().at("install_id").as_string()});
    CHECK(known.name == "den \"pc\"");
    CHECK(known.version == GHOST_VERSION);
    for (const auto* figure : {"cpus", "memory_mib", "disk_bytes"})
        CHECK(known.resources.at(figure).as_object().at("total").to_number<double>() > 0);
    CHECK(known.addresses.at("local").is_array());
    CHECK(core.violations().empty());
}

TEST_CASE("Core is told the address in the tailnet, if tailscaled tells it, and how busy the host is") {
    RunningCore core;
    const Node node;
    const auto socket = node.folder.path("tailscaled.sock");
    static_cast<void>(
        node.folder.write("agent.yaml", "state_dir: " + node.state + "\ntailscale:\n  socket: " + socket + "\n"));
    const auto join = [&] {
        const auto done = node.join(core);
        CAPTURE(done.error);
        REQUIRE(done.code == agent::exit_ok);
        return core.agent();
    };
    CHECK_FALSE(join().addresses.contains("tailscale_ip"));  // nothing is there
    {
        fakes::FakeTailscaled daemon;
        daemon.addresses = {"fd7a:115c:a1e0::7"};
        const OneAnswer tailscaled{socket, daemon.document()};
        CHECK(join().addresses.at("tailscale_ip") == "fd7a:115c:a1e0::7");
    }
    const auto known = join();  // a socket that nobody listens at
    CHECK_FALSE(known.addresses.contains("tailscale_ip"));
    for (const auto* const figure : {"load", "pressure", "power"}) CHECK(known.resources.contains(figure));
    CHECK(core.violations().empty());
}

TEST_CASE("joining twice with the same token is fine, also with it on standard input") {
    RunningCore core;
    const Node node;
    REQUIRE(node.run({"--core", core.url(), "--token", "t0ken", "--ca", core.ca_file(), "--name", "den"}).code ==
            agent::exit_ok);
    const auto key = node.read("core/key.pem");
    const auto before = node.identity();
    // The CA and the name are known from the first time.
    const auto again = node.run({"--core", core.url(), "--token", "-"}, "  t0ken\r\nmore");
    CAPTURE(again.error);
    REQUIRE(again.code == agent::exit_ok);
    CHECK(node.read("core/key.pem") == key);
    CHECK(node.identity().at("install_id") == before.at("install_id"));
    CHECK(node.identity().at("epoch").to_number<int>() > before.at("epoch").to_number<int>());
    CHECK(node.settings().core.tls.ca == core.ca_file());
    CHECK(node.settings().agent.name == "den");
    CHECK(core.agent().name == "den");
}

TEST_CASE("what the configuration says itself isn't written a second time") {
    RunningCore core;
    const Node node;
    static_cast<void>(node.folder.write(
        "agent.yaml", "state_dir: " + node.state + "\nagent:\n  name: den\ncore:\n  tls_ca: " + core.ca_file() + "\n"));
    const auto done = node.run({"--core", core.url(), "--token", "t0ken"});
    CAPTURE(done.error);
    REQUIRE(done.code == agent::exit_ok);
    CHECK(core.agent().name == "den");
    CHECK(node.folder.read("agent.d/core.yaml") ==
          "# Written by \"ghost-agent enroll\", which replaces it the next time.\nagent:\n  api_url: \"" + core.url() +
              "\"\n");
}

TEST_CASE("a token that Core doesn't take changes nothing") {
    RunningCore core;
    const Node node;
    const auto refused = node.join(core, "other");
    CHECK(refused.code == agent::exit_failure);
    CHECK(refused.error.starts_with("ghost-agent: Ghost Core doesn't know this enrolment token"));
    CHECK(refused.out.empty());
    CHECK(node.identity().at("agent_id") == "");
    CHECK_FALSE(std::filesystem::exists(node.state + "/core/cert.pem"));
    CHECK_FALSE(std::filesystem::exists(node.folder.path("agent.d")));
}

TEST_CASE("another Core takes a node over only by force") {
    RunningCore core;
    RunningCore other;
    const Node node;
    REQUIRE(node.join(core).code == agent::exit_ok);
    const auto refused = node.join(other);
    CHECK(refused.code == agent::exit_failure);
    CHECK(refused.error == "ghost-agent: this node is enrolled with " + core.url() + " as " + core.agent().id +
                               "; --force leaves that for another Ghost Core\n");
    CHECK(other.requests() == 0);
    const auto forced = node.run({"--core", other.url(), "--token", "t0ken", "--ca", other.ca_file(), "--force"});
    CAPTURE(forced.error);
    REQUIRE(forced.code == agent::exit_ok);
    CHECK(node.settings().agent.api_url == other.url());
    CHECK(node.identity().at("agent_id").as_string() == other.agent().id);
}

TEST_CASE("while a daemon holds the state directory one is told what to do") {
    RunningCore core;
    const Node node;
    const auto held = agent::StateDirectory::open(node.state);
    REQUIRE(held);
    const auto refused = node.join(core);
    CHECK(refused.code == agent::exit_failure);
    CHECK(refused.error == "ghost-agent: state_dir: another ghost-agent is using " + node.state +
                               ": stop it first (systemctl stop ghost-agent), or set agent.api_url and "
                               "core.enroll_token and restart it\n");
    CHECK(core.requests() == 0);
}

TEST_CASE("a Core that can't be proven or reached is named, with what may help") {
    RunningCore core;
    const Node node;
    fakes::CertificateAuthority strange{"strange CA"};
    const auto ca = node.folder.write("strange.pem", strange.certificate());
    const auto unknown = node.run({"--core", core.url(), "--token", "t0ken", "--ca", ca});
    CHECK(unknown.code == agent::exit_failure);
    CHECK(unknown.error.find("certificate verification failed") != std::string::npos);
    CHECK(unknown.error.ends_with("; is it the CA of Ghost Core's certificate?\n"));
    const auto system = node.run({"--core", core.url(), "--token", "t0ken"});
    CHECK(system.error.ends_with("; name the CA of Ghost Core's certificate with --ca\n"));
    const auto absent = node.run({"--core", "https://127.0.0.1:1", "--token", "t0ken"});
    CHECK(absent.code == agent::exit_failure);
    CHECK(absent.error == "ghost-agent: cannot connect to https://127.0.0.1:1: Connection refused\n");
    const auto no_ca = node.run({"--core", core.url(), "--token", "t0ken", "--ca", node.folder.path("absent.pem")});
    CHECK(no_ca.code == agent::exit_failure);
    CHECK(no_ca.error ==
          "ghost-agent: cannot open " + node.folder.path("absent.pem") + ": No such file or directory\n");
}

TEST_CASE("a word that stands above the drop-in's is pointed out") {
    RunningCore core;
    const Node node;
    std::filesystem::create_directory(node.folder.path("agent.d"));
    static_cast<void>(node.folder.write("agent.d/zz.yaml", "agent:\n  api_url: https://elsewhere.example\n"));
    const auto done = node.join(core);
    CHECK(done.code == agent::exit_failure);
    CHECK(done.error.find("agent.api_url is https://elsewhere.example all the same") != std::string::npos);
    CHECK(node.identity().at("agent_id").as_string() == core.agent().id);
}

TEST_CASE("a wrong command line and a wrong configuration have codes of their own") {
    const Node node;
    const auto usage = [&node](std::vector<std::string> words, const std::string& part) {
        const auto told = node.run(std::move(words));
        CAPTURE(told.error, part);
        CHECK(told.code == agent::exit_usage);
        CHECK(told.error.find(part) != std::string::npos);
    };
    usage({}, "--core is required");
    usage({"--core", "https://a.example"}, "--token is required");
    usage({"--core", "http://a.example", "--token", "t"}, "expected an https:// address");
    usage({"--core", "https://a.example/?x", "--token", "t"}, "expected an https:// address");
    usage({"--core", "nonsense", "--token", "t"}, "--core: ");
    usage({"--core", "https://a.example", "--token", ""}, "--token: expected a token of 1 to 256 characters");
    usage({"--core", "https://a.example", "--token", "-"}, "--token: expected a token of 1 to 256 characters");
    usage({"--core", "https://a.example", "--token", "t", "--name", "a\nb"}, "--name: expected a name");
    usage({"--core", "https://a.example", "--token", "t", "--ca", ""}, "--ca: expected a value, got nothing");
    usage({"--core", "https://a.example", "--token", "t", "--what"}, "--what");
    CHECK(node.run({"--help"}).code == agent::exit_ok);
    CHECK(node.run({"--help"}).out.find("--force") != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(node.state));

    static_cast<void>(node.folder.write("agent.yaml", "state_dir: relative\n"));
    const auto fault = node.run({"--core", "https://a.example", "--token", "t"});
    CHECK(fault.code == agent::exit_config);
    CHECK(fault.error.find("state_dir") != std::string::npos);
}
