#include "net/proxy.hpp"

#include "net/text.hpp"

#include <boost/url/parse.hpp>
#include <boost/url/scheme.hpp>
#include <boost/url/url_view.hpp>

#include <algorithm>
#include <charconv>
#include <string_view>

namespace ghost::net {
namespace {

constexpr std::string_view default_port = "1080";

struct Variable {
    std::string name;
    std::string value;
};

std::optional<Variable> first_set(const Environment& lookup, std::initializer_list<const char*> names) {
    for (const char* name : names)
        if (auto value = lookup(name); value && !value->empty()) return Variable{name, *std::move(value)};
    return std::nullopt;
}

std::unexpected<base::Error> unusable(const Variable& variable, const std::string& why) {
    return base::fail(base::Errc::validation_failed, "the environment variable " + variable.name + " " + why);
}

bool is_port(std::string_view text) {
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    return error == std::errc{} && end == text.data() + text.size() && port != 0;
}

base::Result<Proxy> parse_proxy(const Variable& variable) {
    const bool has_scheme = variable.value.find("://") != std::string::npos;
    const auto text = has_scheme ? variable.value : "http://" + variable.value;
    const auto url = boost::urls::parse_uri(text);
    if (!url || !url->has_authority() || !(url->encoded_path().empty() || url->encoded_path() == "/"))
        return unusable(variable, "holds no proxy; what is allowed looks like http://[user:password@]host[:port]");
    if (url->scheme_id() != boost::urls::scheme::http)
        return unusable(variable,
                        "names a proxy that isn't reached over plain HTTP (http://), which is the only kind "
                        "that is supported");
    // The grammar of hosts is the same as that of any URL's.
    const std::string host{url->encoded_host()};
    const auto reachable = parse_url("http://" + host);
    if (!reachable) return unusable(variable, "names no host for the proxy");
    const std::string port{url->port().empty() ? boost::urls::string_view{default_port} : url->port()};
    if (!is_port(port)) return unusable(variable, "has a port for the proxy that is not one of 1 to 65535");
    return Proxy{reachable->host, port, url->has_userinfo() ? url->userinfo() : std::string{}};
}

// "[::1]:443", "::1", "example.com:443": the host without brackets, and the port.
struct HostPort {
    std::string_view host;
    std::optional<std::string> port;
};
HostPort split(std::string_view entry) {
    auto colon = entry.rfind(':');
    if (entry.starts_with('[')) {
        const auto close = entry.find(']');
        if (close == std::string_view::npos) return {entry, std::nullopt};
        const auto rest = entry.substr(close + 1);
        const auto host = entry.substr(1, close - 1);
        if (rest.starts_with(':')) return {host, std::string{rest.substr(1)}};
        return {rest.empty() ? host : entry, std::nullopt};
    }
    if (colon == std::string_view::npos || entry.find(':') != colon) return {entry, std::nullopt};
    return {entry.substr(0, colon), std::string{entry.substr(colon + 1)}};
}

base::Result<DirectRule> parse_rule(const Variable& variable, std::string_view entry) {
    const auto fault = [&] {
        return unusable(variable, "has an entry that is no domain, address or network: \"" + std::string{entry} + "\"");
    };
    if (entry.find('/') != std::string_view::npos) {
        auto network = parse_network(entry);
        if (!network) return fault();
        return DirectRule{.network = std::move(network)};
    }
    auto [host, port] = split(entry);
    if (port && !is_port(*port)) return fault();
    if (auto address = parse_network(host)) return DirectRule{.network = std::move(address), .port = std::move(port)};
    if (host.starts_with("*.")) host.remove_prefix(1);
    if (host.starts_with('.')) host.remove_prefix(1);
    if (host.ends_with('.')) host.remove_suffix(1);
    if (host.empty() || host.find_first_of(":[]@") != std::string_view::npos) return fault();
    return DirectRule{.domain = to_lower(host), .port = std::move(port)};
}

base::Result<std::vector<DirectRule>> parse_rules(const Variable& variable) {
    static constexpr std::string_view separators = ", \t";
    std::vector<DirectRule> rules;
    const std::string_view text{variable.value};
    for (std::size_t at = text.find_first_not_of(separators); at < text.size();) {
        const auto end = std::min(text.find_first_of(separators, at), text.size());
        auto rule = parse_rule(variable, text.substr(at, end - at));
        if (!rule) return base::fail(std::move(rule.error()));
        rules.push_back(*std::move(rule));
        at = text.find_first_not_of(separators, end);
    }
    return rules;
}

bool applies(const DirectRule& rule, const Url& url) {
    if (rule.port && *rule.port != url.port) return false;
    if (rule.network) {
        boost::system::error_code error;
        const auto address = boost::asio::ip::make_address(url.host, error);
        return !error && contains(*rule.network, address);
    }
    return rule.domain == "*" || url.host == rule.domain || url.host.ends_with("." + rule.domain);
}

}  // namespace

std::string describe(const Proxy& proxy) {
    const bool v6 = proxy.host.find(':') != std::string::npos;
    return "http://" + (v6 ? "[" + proxy.host + "]" : proxy.host) + ":" + proxy.port;
}

base::Result<ProxySettings> proxy_from_environment(const Environment& lookup) {
    ProxySettings settings;
    if (const auto named = first_set(lookup, {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"})) {
        auto proxy = parse_proxy(*named);
        if (!proxy) return base::fail(std::move(proxy.error()));
        settings.proxy = *std::move(proxy);
    }
    if (const auto listed = first_set(lookup, {"no_proxy", "NO_PROXY"})) {
        auto rules = parse_rules(*listed);
        if (!rules) return base::fail(std::move(rules.error()));
        settings.direct = *std::move(rules);
    }
    return settings;
}

std::optional<Proxy> proxy_for(const ProxySettings& settings, const Url& url) {
    if (std::ranges::any_of(settings.direct, [&](const DirectRule& rule) { return applies(rule, url); }))
        return std::nullopt;
    return settings.proxy;
}

}  // namespace ghost::net
