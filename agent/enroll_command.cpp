#include "agent/enroll_command.hpp"

#include "agent/config/config_loader.hpp"
#include "agent/core/enroller.hpp"
#include "agent/daemon.hpp"
#include "agent/host/host.hpp"
#include "agent/host/host_load.hpp"
#include "agent/host/tailnet.hpp"
#include "agent/state_directory.hpp"
#include "heartbeat/https_core.hpp"
#include "net/client.hpp"
#include "net/local_addresses.hpp"
#include "net/text.hpp"
#include "net/url.hpp"
#include "net/x509.hpp"
#include "storage/local_files.hpp"

#include <CLI/CLI.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/string.hpp>
#include <fmt/format.h>
#include <fmt/ostream.h>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <expected>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string_view>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

using base::Errc;
using base::Result;

constexpr std::size_t text_limit = 256;  // of the token and the name
constexpr std::size_t largest_ca = 4UL << 20;
constexpr std::chrono::seconds tailnet_patience{2};

struct Wish {
    std::string core;
    std::string token;
    std::string ca;
    std::string name;
    std::string config_file;
    bool force = false;
};

// A sentence for people, and how the process ends.
struct Stop {
    int code = exit_failure;
    std::string sentence;
};
template <class T>
using Step = std::expected<T, Stop>;

std::unexpected<Stop> stop(int code, std::string sentence) { return std::unexpected{Stop{code, std::move(sentence)}}; }

void declare(CLI::App& app, Wish& wish) {
    app.add_option("--core", wish.core, "address of Ghost Core: https://core.example.org")->required();
    app.add_option("--token", wish.token, "the enrolment token; - reads it from standard input, where ps can't see it")
        ->required();
    app.add_option("--ca", wish.ca,
                   "CA of Ghost Core's certificate, PEM; the agent needs the file from now on, too "
                   "(default: core.tls_ca, else the system's)");
    app.add_option("--name", wish.name,
                   "what this node is called in Ghost Core (default: agent.name, else the host's)");
    app.add_option("--config", wish.config_file, "configuration file (default: /etc/ghost/agent.yaml, if it is there)");
    app.add_flag("--force", wish.force, "leave the Ghost Core that this node is enrolled with for another one");
}

bool is_line(std::string_view text) {
    const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
    return !text.empty() && text.size() <= text_limit && std::ranges::none_of(text, control) && net::is_utf8(text);
}

std::string trimmed(const std::string& text) {
    constexpr const char* blank = " \t\r\n";
    const auto from = text.find_first_not_of(blank);
    return from == std::string::npos ? "" : text.substr(from, text.find_last_not_of(blank) - from + 1);
}

// Reads the token and looks at all that needs no file.
Step<net::Url> check(Wish& wish, std::istream& in) {
    if (wish.token == "-") std::getline(in, wish.token);
    wish.token = trimmed(wish.token);
    if (!is_line(wish.token)) return stop(exit_usage, "--token: expected a token of 1 to 256 characters");
    if (!wish.name.empty() && !is_line(wish.name))
        return stop(exit_usage, "--name: expected a name of 1 to 256 characters");
    while (wish.core.ends_with('/')) wish.core.pop_back();
    auto url = net::parse_url(wish.core);
    if (!url) return stop(exit_usage, "--core: " + url.error().detail);
    if (url->scheme != "https" || url->target.contains('?'))
        return stop(exit_usage, "--core: expected an https:// address such as https://core.example.org");
    if (!wish.ca.empty()) wish.ca = std::filesystem::absolute(wish.ca).string();
    return *std::move(url);
}

ConfigSources sources_of(const Wish& wish, const EnrollSurroundings& surroundings) {
    ConfigSources sources;
    if (!wish.config_file.empty()) sources.file = wish.config_file;
    sources.environment = surroundings.environment;
    sources.check_files = false;  // what is missing may be what this is to bring
    return sources;
}

Step<StateDirectory> hold(const std::string& path) {
    auto directory = StateDirectory::open(path);
    if (directory) return *std::move(directory);
    const auto& error = directory.error();
    if (error.code == Errc::state_conflict)
        return stop(exit_failure, error.detail +
                                      ": stop it first (systemctl stop ghost-agent), or set agent.api_url "
                                      "and core.enroll_token and restart it");
    return stop(error.code == Errc::insufficient_storage ? exit_failure : exit_config, error.detail);
}

// The Core that this node is enrolled with, when it isn't that of `url`.
std::optional<std::string> other_core(const net::Url& url, const heartbeat::Identity& identity, const Config& config) {
    if (identity.agent_id.empty()) return std::nullopt;
    auto known = identity.core_urls;
    if (!config.agent.api_url.empty()) known.insert(known.begin(), config.agent.api_url);
    const auto same = [&url](const std::string& text) {
        const auto other = net::parse_url(text);
        return other && net::same_origin(*other, url);
    };
    if (known.empty() || std::ranges::any_of(known, same)) return std::nullopt;
    return known.front();
}

// Without the VMs, which only the daemon knows; it tells all of it in its first session.
asio::awaitable<json::object> resources_of(const Config& config, storage::Files& files, base::Clock& clock) {
    const VmIndex none{co_await asio::this_coro::executor, clock, 1};
    Capacity capacity{none, reserve_of(config)};
    const auto pages = static_cast<std::uint64_t>(std::max(0L, ::sysconf(_SC_PHYS_PAGES)));
    const auto page_size = static_cast<std::uint64_t>(std::max(0L, ::sysconf(_SC_PAGESIZE)));
    capacity.set_host(static_cast<unsigned>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN))), (pages * page_size) >> 20);
    if (const auto space = co_await files.space(config.state_dir)) capacity.set_disk(*space, 0);
    LoadWatch load{files, clock};
    co_await load.measure();
    co_return resources_json(capacity.resources(), load.now());
}

asio::awaitable<json::object> addresses_of(const Config& config, storage::Files& files) {
    const auto local = net::local_addresses();
    json::object addresses{{"local", json::array(local.begin(), local.end())}};
    if (config.tailscale.socket.empty()) co_return addresses;
    const auto tailscaled = net::make_client(net::UnixPeer{config.tailscale.socket});
    const auto tailnet = co_await ask_tailscaled(files, *tailscaled, config.tailscale.socket, tailnet_patience);
    if (const auto address = tailnet.address(); !address.empty()) addresses["tailscale_ip"] = address;
    co_return addresses;
}

// What an earlier enrolment wrote into the drop-in stays there unless it is said anew.
void keep_earlier(Wish& wish, const std::string& drop_in) {
    ConfigSources sources;
    sources.file = drop_in;
    sources.check_files = false;
    const auto earlier = load_config(sources);
    if (!earlier) return;  // most likely there is none
    if (wish.name.empty()) wish.name = earlier->agent.name;
    if (wish.ca.empty()) wish.ca = earlier->core.tls.ca;
}

// A text in quotes that YAML reads as it stands.
std::string quoted(const std::string& text) { return json::serialize(json::string{text}); }

std::string drop_in_text(const Wish& wish) {
    auto text =
        fmt::format("# Written by \"ghost-agent enroll\", which replaces it the next time.\nagent:\n  api_url: {}\n",
                    quoted(wish.core));
    if (!wish.name.empty()) text += fmt::format("  name: {}\n", quoted(wish.name));
    if (!wish.ca.empty()) text += fmt::format("core:\n  tls_ca: {}\n", quoted(wish.ca));
    return text;
}

// What may help with an error of the enrolment.
std::string_view hint(const base::Error& error, const std::string& ca) {
    const auto* const fact = error.facts.if_contains("certificate");
    if (fact == nullptr || !fact->is_string()) return "";
    const std::string_view reason = fact->get_string();
    if (reason.contains("expired") || reason.contains("not yet valid")) return "; is this machine's clock right?";
    if (reason.contains("mismatch")) return "; is it the name in Ghost Core's certificate?";
    return ca.empty() ? "; name the CA of Ghost Core's certificate with --ca"
                      : "; is it the CA of Ghost Core's certificate?";
}

struct Scene {
    const Wish& wish;
    const net::Url& url;
    const Config& config;
    const std::string& ca;  // file, by which Core is proven; empty: the system's
    std::string drop_in;
};

struct Joined {
    heartbeat::Identity identity;
    heartbeat::Credentials credentials;
    Result<void> drop_in;
};

asio::awaitable<Result<Joined>> join(Scene scene, heartbeat::Identity identity, base::Clock& clock) {
    storage::LocalFiles files;
    CredentialFiles credentials{files, scene.config.state_dir};
    auto ca = scene.ca.empty() ? Result<std::string>{} : co_await files.read(scene.ca, largest_ca);
    if (!ca) co_return base::fail(std::move(ca.error()));
    heartbeat::HttpsCore core;
    if (auto used = core.use({}, *std::move(ca)); !used) co_return base::fail(std::move(used.error()));
    Joining joining{.url = scene.wish.core,
                    .token = scene.wish.token,
                    .name = scene.wish.name.empty() ? node_name(scene.config) : scene.wish.name,
                    .resources = co_await resources_of(scene.config, files, clock),
                    .addresses = co_await addresses_of(scene.config, files)};
    auto joined = co_await enrol(core, credentials, std::move(identity), std::move(joining));
    if (!joined) co_return base::fail(std::move(joined.error()));
    auto kept = co_await credentials.load();
    if (!kept) co_return base::fail(std::move(kept.error()));
    auto written = co_await files.make_directories(std::filesystem::path{scene.drop_in}.parent_path().string(), 0755);
    if (written) written = co_await files.write(scene.drop_in, drop_in_text(scene.wish), 0644);
    co_return Joined{*std::move(joined), *std::move(kept), std::move(written)};
}

Result<Joined> join_on_a_loop(const Scene& scene, const heartbeat::Identity& identity, base::Clock& clock) {
    asio::io_context loop{1};
    Result<Joined> result = base::fail(Errc::internal);
    std::exception_ptr escaped;
    asio::co_spawn(loop, join(scene, identity, clock), [&](std::exception_ptr error, Result<Joined> done) {
        escaped = std::move(error);
        result = std::move(done);
    });
    loop.run();
    if (escaped) std::rethrow_exception(escaped);
    return result;
}

void tell(const Scene& scene, const Joined& joined, std::ostream& out) {
    const auto certificate = net::read_certificate(joined.credentials.certificate);
    fmt::print(out, "Enrolled with {} as {}.\n", scene.wish.core, joined.identity.agent_id);
    fmt::print(out, "The key and the certificate, valid until {}, are in {}/core.\n",
               certificate ? base::rfc3339(certificate->not_after) : "an unknown time", scene.config.state_dir);
    if (!scene.wish.ca.empty()) fmt::print(out, "Keep {}: the agent reads it at each start.\n", scene.wish.ca);
}

// Something else may have the last word about where Core is.
std::string overruled(const Scene& scene, const ConfigSources& sources) {
    const auto config = load_config(sources);
    if (!config) return config.error().sentences.empty() ? "the configuration has faults" : config.error().sentences[0];
    if (config->agent.api_url == scene.wish.core) return {};
    return fmt::format("agent.api_url is {} all the same: a later drop-in or GHOST_AGENT__API_URL says so",
                       config->agent.api_url);
}

Step<void> enroll(Wish wish, const EnrollSurroundings& with) {
    const auto url = check(wish, with.in);
    if (!url) return std::unexpected{url.error()};
    const auto sources = sources_of(wish, with);
    const auto config = load_config(sources);
    if (!config) {
        for (const auto& sentence : config.error().sentences) fmt::print(with.error, "ghost-agent: {}\n", sentence);
        return stop(exit_config, "");
    }
    const auto ca = wish.ca.empty() ? config->core.tls.ca : wish.ca;
    const auto usable = net::make_client_tls(net::TlsFiles{.certificate = {}, .key = {}, .ca = ca});
    if (!usable) return stop(exit_failure, usable.error().detail);
    const auto directory = hold(config->state_dir);
    if (!directory) return std::unexpected{directory.error()};
    base::SystemClock clock;
    base::SystemRandom random;
    const auto identity = directory->next_identity(clock, random);
    if (!identity) return stop(exit_failure, identity.error().detail);
    if (const auto other = other_core(*url, *identity, *config); other && !wish.force)
        return stop(exit_failure,
                    fmt::format("this node is enrolled with {} as {}; --force leaves that for another Ghost Core",
                                *other, identity->agent_id));

    const auto file = sources.file.value_or(sources.default_file);
    const auto drop_in = (std::filesystem::absolute(file).replace_extension(".d") / "core.yaml").string();
    keep_earlier(wish, drop_in);
    const Scene scene{wish, *url, *config, ca, drop_in};
    const auto joined = join_on_a_loop(scene, *identity, clock);
    if (!joined) return stop(exit_failure, joined.error().detail + std::string{hint(joined.error(), ca)});
    tell(scene, *joined, with.out);
    if (!joined->drop_in)
        return stop(exit_failure, fmt::format("{}; set agent.api_url to {} in the configuration yourself",
                                              joined->drop_in.error().detail, wish.core));
    fmt::print(with.out, "{} says where Ghost Core is.\n", scene.drop_in);
    if (const auto why = overruled(scene, sources); !why.empty()) return stop(exit_failure, why);
    fmt::print(with.out, "Now start the agent: systemctl start ghost-agent\n");
    return {};
}

}  // namespace

int run_enroll(std::vector<std::string> words, EnrollSurroundings surroundings) {
    CLI::App app{"Joins Ghost Core: makes a key, gets a certificate for it, and notes where Core is",
                 "ghost-agent enroll"};
    Wish wish;
    declare(app, wish);
    std::ranges::reverse(words);  // as CLI11 takes a vector
    try {
        app.parse(std::move(words));
    } catch (const CLI::ParseError& told) {  // also what --help prints
        return app.exit(told, surroundings.out, surroundings.error) == 0 ? exit_ok : exit_usage;
    }
    for (const auto* const option : {"--ca", "--name", "--config"}) {
        if (app.count(option) == 0 || !app[option]->as<std::string>().empty()) continue;  // "$UNSET": not the defaults
        fmt::print(surroundings.error, "ghost-agent: {}: expected a value, got nothing\n", option);
        return exit_usage;
    }
    const auto done = enroll(std::move(wish), surroundings);
    if (done) return exit_ok;
    if (!done.error().sentence.empty()) fmt::print(surroundings.error, "ghost-agent: {}\n", done.error().sentence);
    return done.error().code;
}

}  // namespace ghost::agent
