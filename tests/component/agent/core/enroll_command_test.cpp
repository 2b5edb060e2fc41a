// ghost-agent enroll against a Core on loopback, with real files.
#include "agent/enroll_command.hpp"

#include "agent/config/config_loader.hpp"
#include "agent/daemon.hpp"
#include "agent/state_directory.hpp"
#include "base/ids.hpp"
#include "fakes/certificates.hpp"
#include "fakes/scratch_folder.hpp"
#include "heartbeat/enrolment.hpp"
#include "net/problem.hpp"
#include "net/server.hpp"
#include "net/url.hpp"
#include "net/x509.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace ghost;
namespace asio = boost::asio;
namespace json = boost::json;

namespace {

// Takes the token "t0ken" and names everybody node-7.
class SmallCore {
public:
    SmallCore() {
        const auto own = ca.issue({.common_name = "core", .alternative_names = "DNS:localhost,IP:127.0.0.1"});
        const net::TlsFiles files{folder.write("core.pem", own.certificate), folder.write("core.key", own.key),
                                  folder.write("ca.pem", ca.certificate())};
        ::chmod(files.key.c_str(), 0600);
        const auto listener = server_->listen(
            net::TcpEndpoint{"127.0.0.1", 0}, net::make_server_tls(files).value(),
            [this](net::Request request) -> asio::awaitable<net::Response> { co_return answer(request); });
        url = "https://" + listener.value()->address();
        thread_ = std::thread{[this] { loop_.run(); }};
    }
    ~SmallCore() {
        asio::co_spawn(loop_, server_->shut_down(std::chrono::seconds{10}), asio::use_future).get();
        work_.reset();
        thread_.join();
    }
    SmallCore(const SmallCore&) = delete;
    SmallCore& operator=(const SmallCore&) = delete;

    fakes::ScratchFolder folder;
    fakes::CertificateAuthority ca{"core CA"};
    std::string url;
    std::vector<json::object> asked;  // read it between requests

private:
    net::Response answer(const net::Request& request) {
        if (request.path != "/v1/agents/enroll") return net::problem(404, "not_found", "No", request.path, "");
        asked.push_back(json::parse(request.body).as_object());
        if (asked.back().at("token").as_string() != "t0ken")
            return net::problem(403, "token_unknown", "Unknown token", "no such token", "");
        const auto certificate = ca.sign(std::string{asked.back().at("csr").as_string()}, {.common_name = "node-7"});
        return {.status = 201,
                .body = json::serialize(json::object{{"agent_id", "node-7"},
                                                     {"certificate", certificate.value()},
                                                     {"ca", ca.certificate()},
                                                     {"core_urls", json::array{url}}})};
    }

    asio::io_context loop_{1};
    asio::executor_work_guard<asio::io_context::executor_type> work_{loop_.get_executor()};
    base::Log log_;
    base::SystemClock clock_;
    base::SystemRandom random_;
    std::unique_ptr<net::Server> server_ =
        net::make_http_server(loop_.get_executor(), {}, log_,
                              {.request_id = [this] { return base::make_uuid(clock_, random_); },
                               .traceparent = [this] { return base::make_traceparent(random_); }});
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
    [[nodiscard]] Outcome join(const SmallCore& core, const std::string& token = "t0ken") const {
        return run({"--core", core.url, "--token", token, "--ca", core.folder.path("ca.pem")});
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

}  // namespace

TEST_CASE("a node joins: credentials and identity are kept and the configuration says where Core is") {
    SmallCore core;
    const Node node;
    const auto done = node.run(
        {"--core", core.url + "/", "--token", "t0ken", "--ca", core.folder.path("ca.pem"), "--name", "den \"pc\""});
    CAPTURE(done.error);
    REQUIRE(done.code == agent::exit_ok);
    CHECK(done.error.empty());
    CHECK(done.out.starts_with("Enrolled with " + core.url + " as node-7.\n"));
    CHECK(done.out.find("systemctl start ghost-agent") != std::string::npos);
    CHECK(done.out.find("t0ken") == std::string::npos);

    CHECK(node.mode("core") == 0700);
    CHECK(node.mode("core/key.pem") == 0600);
    CHECK(node.mode("identity.json") == 0600);
    CHECK(net::check_pair(node.read("core/cert.pem"), node.read("core/key.pem")));
    CHECK(node.read("core/ca.pem") == core.ca.certificate());
    CHECK(node.identity().at("agent_id") == "node-7");
    CHECK(node.identity().at("used_token").as_string() == heartbeat::token_digest("t0ken"));

    const auto settings = node.settings();
    CHECK(settings.agent.api_url == core.url);
    CHECK(settings.agent.name == "den \"pc\"");
    CHECK(settings.core.tls.ca == core.folder.path("ca.pem"));

    REQUIRE(core.asked.size() == 1);
    const auto& asked = core.asked[0];
    CHECK(asked.at("install_id") == node.identity().at("install_id"));
    CHECK(asked.at("name") == "den \"pc\"");
    CHECK(asked.at("version") == GHOST_VERSION);
    CHECK(asked.at("addresses").as_object().at("local").is_array());
    const auto& resources = asked.at("resources").as_object();
    CHECK(resources.at("cpus").as_object().at("total").to_number<double>() > 0);
    CHECK(resources.at("memory_mib").as_object().at("total").to_number<double>() > 0);
    CHECK(resources.at("disk_bytes").as_object().at("total").to_number<double>() > 0);
}

TEST_CASE("joining twice with the same token is fine, also with it on standard input") {
    SmallCore core;
    const Node node;
    REQUIRE(
        node.run({"--core", core.url, "--token", "t0ken", "--ca", core.folder.path("ca.pem"), "--name", "den"}).code ==
        agent::exit_ok);
    const auto key = node.read("core/key.pem");
    const auto before = node.identity();
    // The CA and the name are known from the first time.
    const auto again = node.run({"--core", core.url, "--token", "-"}, "  t0ken\r\nmore");
    CAPTURE(again.error);
    REQUIRE(again.code == agent::exit_ok);
    CHECK(node.read("core/key.pem") == key);
    CHECK(node.identity().at("install_id") == before.at("install_id"));
    CHECK(node.identity().at("epoch").to_number<int>() > before.at("epoch").to_number<int>());
    CHECK(node.settings().core.tls.ca == core.folder.path("ca.pem"));
    CHECK(node.settings().agent.name == "den");
    CHECK(core.asked.at(1).at("name") == "den");
}

TEST_CASE("what the configuration says itself isn't written a second time") {
    SmallCore core;
    const Node node;
    static_cast<void>(node.folder.write(
        "agent.yaml",
        "state_dir: " + node.state + "\nagent:\n  name: den\ncore:\n  tls_ca: " + core.folder.path("ca.pem") + "\n"));
    const auto done = node.run({"--core", core.url, "--token", "t0ken"});
    CAPTURE(done.error);
    REQUIRE(done.code == agent::exit_ok);
    CHECK(core.asked.at(0).at("name") == "den");
    CHECK(node.folder.read("agent.d/core.yaml") ==
          "# Written by \"ghost-agent enroll\", which replaces it the next time.\nagent:\n  api_url: \"" + core.url +
              "\"\n");
}

TEST_CASE("a token that Core doesn't take changes nothing") {
    SmallCore core;
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
    SmallCore core;
    SmallCore other;
    const Node node;
    REQUIRE(node.join(core).code == agent::exit_ok);
    const auto refused = node.join(other);
    CHECK(refused.code == agent::exit_failure);
    CHECK(refused.error == "ghost-agent: this node is enrolled with " + core.url +
                               " as node-7; --force leaves that for another Ghost Core\n");
    CHECK(other.asked.empty());
    const auto forced =
        node.run({"--core", other.url, "--token", "t0ken", "--ca", other.folder.path("ca.pem"), "--force"});
    CAPTURE(forced.error);
    REQUIRE(forced.code == agent::exit_ok);
    CHECK(node.settings().agent.api_url == other.url);
    CHECK(node.read("core/ca.pem") == other.ca.certificate());
}

TEST_CASE("while a daemon holds the state directory one is told what to do") {
    SmallCore core;
    const Node node;
    const auto held = agent::StateDirectory::open(node.state);
    REQUIRE(held);
    const auto refused = node.join(core);
    CHECK(refused.code == agent::exit_failure);
    CHECK(refused.error == "ghost-agent: state_dir: another ghost-agent is using " + node.state +
                               ": stop it first (systemctl stop ghost-agent), or set agent.api_url and "
                               "core.enroll_token and restart it\n");
    CHECK(core.asked.empty());
}

TEST_CASE("a Core that can't be proven or reached is named, with what may help") {
    SmallCore core;
    const Node node;
    fakes::CertificateAuthority strange{"strange CA"};
    const auto ca = node.folder.write("strange.pem", strange.certificate());
    const auto unknown = node.run({"--core", core.url, "--token", "t0ken", "--ca", ca});
    CHECK(unknown.code == agent::exit_failure);
    CHECK(unknown.error.find("certificate verification failed") != std::string::npos);
    CHECK(unknown.error.ends_with("; is it the CA of Ghost Core's certificate?\n"));
    const auto system = node.run({"--core", core.url, "--token", "t0ken"});
    CHECK(system.error.ends_with("; name the CA of Ghost Core's certificate with --ca\n"));
    const auto absent = node.run({"--core", "https://127.0.0.1:1", "--token", "t0ken"});
    CHECK(absent.code == agent::exit_failure);
    CHECK(absent.error == "ghost-agent: cannot connect to https://127.0.0.1:1: Connection refused\n");
    const auto no_ca = node.run({"--core", core.url, "--token", "t0ken", "--ca", node.folder.path("absent.pem")});
    CHECK(no_ca.code == agent::exit_failure);
    CHECK(no_ca.error ==
          "ghost-agent: cannot open " + node.folder.path("absent.pem") + ": No such file or directory\n");
}

TEST_CASE("a word that stands above the drop-in's is pointed out") {
    SmallCore core;
    const Node node;
    std::filesystem::create_directory(node.folder.path("agent.d"));
    static_cast<void>(node.folder.write("agent.d/zz.yaml", "agent:\n  api_url: https://elsewhere.example\n"));
    const auto done = node.join(core);
    CHECK(done.code == agent::exit_failure);
    CHECK(done.error.find("agent.api_url is https://elsewhere.example all the same") != std::string::npos);
    CHECK(node.identity().at("agent_id") == "node-7");
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
