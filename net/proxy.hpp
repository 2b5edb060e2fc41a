// The HTTP proxy that the environment names, and who is reached without it.
#pragma once

#include "base/error.hpp"
#include "net/address_rules.hpp"
#include "net/url.hpp"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace ghost::net {

struct Proxy {
    std::string host;
    std::string port;
    std::string credentials = {};  // "user:password"; never in a sentence
};
[[nodiscard]] std::string describe(const Proxy& proxy);  // "http://proxy.example:3128"

// One entry of NO_PROXY.
struct DirectRule {
    std::string domain = {};               // it and what is below it, lower case; "*": every host
    std::optional<Network> network = {};   // of hosts that are addresses; instead of `domain`
    std::optional<std::string> port = {};  // only there
};
struct ProxySettings {
    std::optional<Proxy> proxy = {};
    std::vector<DirectRule> direct = {};
};

// As curl reads it: https_proxy, HTTPS_PROXY, all_proxy, ALL_PROXY, the first that isn't empty, and no_proxy or
// NO_PROXY. The proxy is [http://][user:password@]host[:port], its port 1080 when it has none. NO_PROXY: entries with
// commas or spaces between them: "*", "example.com" or ".example.com" (both: the domain and what is below it),
// addresses, networks ("10.0.0.0/8"), each but a network with ":port" if wanted. Errors: validation_failed, which names
// the variable.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
[[nodiscard]] base::Result<ProxySettings> proxy_from_environment(const Environment& lookup);

// Names are not resolved for it: a network in NO_PROXY is for URLs with an address.
[[nodiscard]] std::optional<Proxy> proxy_for(const ProxySettings& settings, const Url& url);

}  // namespace ghost::net
