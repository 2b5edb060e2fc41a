// fake-core: a stand-in for Ghost Core as a program, for the quick start, for system tests and for people.
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "tests/fakes/core_server.hpp"

#include <CLI/CLI.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

using namespace ghost;
using fakes::CoreServer;

namespace {

struct Asked {
    std::string listen = "127.0.0.1:0";
    std::string page = "127.0.0.1:0";
    std::vector<std::string> tokens = {};
    std::string dir = {};
    fakes::FakeCore::Settings core = {};
    long lifetime_s = 24 * 3600;
};

// "0" is a port alone, as of any free one.
net::TcpEndpoint endpoint(const std::string& text) {
    const auto whole = text.contains(':') ? text : "127.0.0.1:" + text;
    auto parsed = net::parse_tcp_endpoint(whole);
    if (!parsed) throw std::invalid_argument{parsed.error().detail};
    return *std::move(parsed);
}

// Removed at the end, unless it was given.
class Folder {
public:
    explicit Folder(const std::string& given)
        : path_(given.empty() ? std::string{} : std::filesystem::absolute(given).string()), ours_(given.empty()) {
        if (!ours_) {
            std::filesystem::create_directories(path_);
            return;
        }
        auto pattern = (std::filesystem::temp_directory_path() / "fake-core-XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error{"no temporary folder"};
        path_ = pattern;
    }
    ~Folder() {
        std::error_code ignored;
        if (ours_) std::filesystem::remove_all(path_, ignored);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

private:
    std::string path_;
    bool ours_;
};

int run(const Asked& asked) {
    const Folder folder{asked.dir};
    boost::asio::io_context loop{1};
    base::SystemClock clock;
    base::SystemRandom random;
    std::vector<std::unique_ptr<base::LogSink>> sinks;
    sinks.push_back(base::make_stream_sink(STDERR_FILENO, base::LogFormat::text));
    base::Log log{base::Level::info, std::move(sinks)};

    auto settings = asked.core;
    settings.tokens = {asked.tokens.begin(), asked.tokens.end()};
    settings.certificate_lifetime = std::chrono::seconds{asked.lifetime_s};
    // Its memory ends with the process: the CA that it keeps says whom it knew.
    settings.known_by_certificate = !asked.dir.empty();
    CoreServer server{loop.get_executor(),
                      clock,
                      random,
                      log,
                      {folder.path(), endpoint(asked.listen), endpoint(asked.page), std::move(settings)}};
    if (const auto started = server.start(); !started) {
        fmt::print(stderr, "fake-core: {}\n", started.error().detail);
        return 1;
    }
    boost::asio::signal_set signals{loop, SIGTERM, SIGINT};
    signals.async_wait([&](const boost::system::error_code& error, int) {
        if (!error) boost::asio::co_spawn(loop, server.stop(), [&loop](const std::exception_ptr&) { loop.stop(); });
    });
    fmt::print("{}\n", boost::json::serialize(boost::json::object{
                           {"url", server.url()}, {"page", server.page_url()}, {"ca", server.ca_file()}}));
    std::fflush(stdout);
    loop.run();
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    Asked asked;
    CLI::App options{
        "fake-core, a stand-in for Ghost Core on loopback. It serves heartbeat/core-api.yaml over TLS with\n"
        "certificates of its own, and over plain HTTP, for people: GET / shows what it knows, POST /commands\n"
        "{agent_id?, kind, target?, params?, ...} gives an agent something to do, GET /commands and\n"
        "GET /commands/{id} tell what became of it, POST /faults switches faults on, GET /faults shows them,\n"
        "POST /tokens {token} adds a token.\n"
        "It prints one line of JSON when it listens: url, page and ca, the file with the CA to trust."};
    options.add_option("--listen", asked.listen, "HTTPS for agents (127.0.0.1:0; 0: any free port)");
    options.add_option("--page", asked.page, "plain HTTP for people (127.0.0.1:0)");
    options.add_option("--token", asked.tokens,
                       "good for one installation's enrolment; may be repeated; -: a line of standard input");
    options.add_option("--ttl", asked.core.ttl_s, "seconds within which a beat is wanted (60)")
        ->check(CLI::Range(1, 3600));
    options.add_option("--grace", asked.core.grace_s, "seconds after which an agent is lost, beside those (180)")
        ->check(CLI::Range(0, 86400));
    options.add_option("--full-sync", asked.core.full_sync_every_s, "seconds between full syncs (3600)")
        ->check(CLI::Range(10, 86400));
    options.add_option("--lifetime", asked.lifetime_s, "seconds that certificates are good for (86400)")
        ->check(CLI::Range(1L, 315'360'000L));
    options.add_option("--dir", asked.dir, "keeps the CA (ca.crt, ca.key) and, by it, knows its agents again");
    options.footer(fakes::fault_words() +
                   "What isn't named stays as it is. For example, with the page's address:\n"
                   "  curl PAGE/faults --json '{\"drop_reply\": 0.2, \"too_many\": {\"next\": 3}}'\n"
                   "  curl PAGE/faults --json '{\"overrides\": [{\"route\": \"heartbeat\", \"status\": 410}]}'\n"
                   "  curl PAGE/commands --json '{\"kind\": \"vm.stop\", \"target\": \"web-1\"}'");
    try {
        options.parse(argc, argv);
    } catch (const CLI::ParseError& told) {  // also what --help prints
        return options.exit(told) == 0 ? 0 : 2;
    }
    // Not on the command line, which other users see.
    for (auto& token : asked.tokens) {
        if (token != "-") continue;
        if (!std::getline(std::cin, token) || token.empty()) {
            fmt::print(stderr, "fake-core: --token -: standard input has no token\n");
            return 2;
        }
    }
    try {
        return run(asked);
    } catch (const std::exception& error) {
        fmt::print(stderr, "fake-core: {}\n", error.what());
        return 1;
    }
}
