#include "agent/config/config_reader.hpp"
#include "agent/config/config_values.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

namespace ghost::agent {
namespace {

class Rules {
public:
    Rules(Config& config, const Layer& layer, FaultList& faults) : config_(config), layer_(layer), faults_(faults) {}

    void settle() {
        fall_back_to_grpc();
        require_whole("api", config_.api.tls);
        require_pair("core", config_.core.tls);
        check_listeners();
        check_tailnet();
        check_socket("api.socket", config_.api.socket);
        check_socket("tailscale.socket", config_.tailscale.socket);
        check_core_url();
        add_notes();
    }

private:
    void fault(const std::string& path, const std::string& sentence) {
        const auto origin = layer_.origins.find(path);
        if (origin == layer_.origins.end())
            faults_.add(path + ": " + sentence);
        else
            faults_.add(origin->second, path + ": " + sentence);
    }

    void fall_back_to_grpc() {
        auto& tls = config_.api.tls;
        const auto& grpc = config_.grpc.tls;
        if (tls.cert.empty()) tls.cert = grpc.cert;
        if (tls.key.empty()) tls.key = grpc.key;
        if (tls.ca.empty()) tls.ca = grpc.ca;
    }

    // Certificate, key and CA stand together or not at all.
    void require_whole(const std::string& section, const TlsConfig& tls) {
        if (tls.complete() || (tls.cert.empty() && tls.key.empty() && tls.ca.empty())) return;
        for (const auto& [name, value] : {std::pair{"tls_cert", &tls.cert}, {"tls_key", &tls.key}, {"tls_ca", &tls.ca}})
            if (value->empty())
                fault_of_missing(section, name, "missing: tls_cert, tls_key and tls_ca stand together or not at all");
    }
    void require_pair(const std::string& section, const TlsConfig& tls) {
        if (tls.cert.empty() == tls.key.empty()) return;
        fault_of_missing(section, tls.cert.empty() ? "tls_cert" : "tls_key",
                         "missing: tls_cert and tls_key stand together or not at all");
    }
    // A key that isn't there has no place of its own; the nearest is where its companions stand.
    void fault_of_missing(const std::string& section, const std::string& name, const std::string& sentence) {
        Origin place;
        for (const auto* const from : {"grpc", section.c_str()})
            for (const auto* const companion : {"tls_ca", "tls_key", "tls_cert"})
                if (const auto it = layer_.origins.find(fmt::format("{}.{}", from, companion));
                    it != layer_.origins.end() && (section == "api" || section == from))
                    place = it->second;
        faults_.add(place, section + '.' + name + ": " + sentence);
    }

    static bool is_loopback(const std::string& address) {
        const auto endpoint = parse_listen_address(address);
        return endpoint && endpoint->address().is_loopback();
    }

    void check_listeners() {
        const auto& api = config_.api.listen_addr;
        const auto& health = config_.health.listen_addr;
        const auto& metrics = config_.metrics;
        for (auto it = api.begin(); it != api.end(); ++it)
            if (std::find(api.begin(), it, *it) != it) fault("api.listen_addr", "names " + *it + " twice");

        const bool shared = health.empty() || std::ranges::find(api, health) != api.end();
        if (!shared && !is_loopback(health))
            fault(
                "health.listen_addr",
                fmt::format("plain TCP is served on loopback only, and {} is not loopback; name the API's address ({}) "
                            "to share its TLS listener",
                            health, fmt::join(api, ", ")));
        // It is open to everybody, so it must not be a path of anything else.
        const auto& path = config_.health.path;
        if (path == "/ready" || path == "/live" || path == "/v1" || path.starts_with("/v1/"))
            fault("health.path", path + " is the API's own; expected another, such as /healthz");
        if (!metrics.enabled) return;
        if (!is_loopback(metrics.listen_addr) && !config_.api.tls.complete())
            fault("metrics.listen_addr",
                  fmt::format("plain TCP is served on loopback only, and {} is not loopback; set api.tls_cert, "
                              "api.tls_key and api.tls_ca to serve metrics with TLS",
                              metrics.listen_addr));
        if (std::ranges::find(api, metrics.listen_addr) != api.end())
            fault("metrics.listen_addr", metrics.listen_addr + " is the API's address; metrics need one of their own");
        else if (metrics.listen_addr == health)
            fault("metrics.listen_addr", metrics.listen_addr + " is health's address; metrics need one of their own");
    }

    // The address of the tailnet comes and goes; what else listens on its port must leave room for it.
    void check_tailnet() {
        const auto& api = config_.api.listen_addr;
        for (const auto& wanted : api) {
            const auto port = parse_tailnet_port(wanted);
            if (!port) continue;
            if (config_.tailscale.socket.empty())
                fault("api.listen_addr", wanted + " needs tailscale.socket, where tailscaled is asked for the address");
            auto others = api;
            if (config_.metrics.enabled) others.push_back(config_.metrics.listen_addr);
            for (const auto& other : others) {
                const auto endpoint = parse_listen_address(other);
                if (endpoint && endpoint->address().is_unspecified() && endpoint->port() == *port)
                    fault("api.listen_addr", fmt::format("{} has every address, also the tailnet's: {} finds its port "
                                                         "taken",
                                                         other, wanted));
            }
        }
    }

    void check_socket(const std::string& path, const std::string& socket) {
        constexpr std::size_t longest = sizeof(sockaddr_un{}.sun_path) - 1;
        if (socket.size() > longest)
            fault(path, fmt::format("expected a path of at most {} bytes, got {}", longest, socket.size()));
    }

    void check_core_url() {
        const std::string_view url = config_.agent.api_url;
        if (url.empty()) return;
        const auto authority = url.substr(std::min(url.size(), std::size_t{8}));
        const auto host = authority.substr(0, authority.find_first_of("/?#"));
        if (!url.starts_with("https://") || host.empty())
            fault("agent.api_url", "expected an https:// address such as https://core.example.org");
        else if (host.contains('@'))
            fault("agent.api_url", "expected an address without a user name or password in it");
    }

    void add_notes() {
        auto& notes = config_.notes;
        if (config_.grpc.configured)
            notes.emplace_back("grpc: configured, not served: this version has no gRPC interface");
        if (config_.agent.api_url.empty() && !config_.core.enroll_token.empty())
            notes.emplace_back("core.enroll_token: set, not used: agent.api_url names no Ghost Core");
        if (!config_.agent.version.empty())
            notes.emplace_back("agent.version: read, not used: the program knows its own version");
        if (!config_.api.tls.complete())
            notes.emplace_back("api: no certificates are configured, so only the Unix socket is served");
    }

    Config& config_;
    const Layer& layer_;
    FaultList& faults_;
};

}  // namespace

void settle(Config& config, const Layer& layer, FaultList& faults) { Rules{config, layer, faults}.settle(); }

void check_certificate_files(const Config& config, const Layer& layer, FaultList& faults) {
    struct File {
        std::string_view member;
        const std::string& path;
        bool key;
    };
    for (const auto& [section, tls] : {std::pair<std::string, const TlsConfig&>{"api", config.api.tls},
                                       std::pair<std::string, const TlsConfig&>{"core", config.core.tls}}) {
        for (const auto& file : std::array{File{"tls_cert", tls.cert, false}, File{"tls_key", tls.key, true},
                                           File{"tls_ca", tls.ca, false}}) {
            if (file.path.empty()) continue;
            const auto key = fmt::format("{}.{}", section, file.member);
            const auto fallback = fmt::format("grpc.{}", file.member);
            const auto& named = section == "api" && !layer.origins.contains(key) ? fallback : key;
            const auto add = [&](const std::string& sentence) {
                const auto origin = layer.origins.find(named);
                faults.add(origin == layer.origins.end() ? Origin{} : origin->second, named + ": " + sentence);
            };
            struct stat status{};
            if (::stat(file.path.c_str(), &status) != 0)
                add(fmt::format("{} cannot be read: {}", file.path, std::system_category().message(errno)));
            else if (!S_ISREG(status.st_mode))
                add(file.path + " is no regular file");
            else if (file.key && (status.st_mode & 0077U) != 0)
                add(fmt::format("{0} is open to others than its owner; close it with: chmod go= {0}", file.path));
        }
    }
}

}  // namespace ghost::agent
