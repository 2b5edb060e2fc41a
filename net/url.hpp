// An http:// or https:// URL, taken apart.
#pragma once

#include "base/error.hpp"

#include <string>
#include <string_view>

namespace ghost::net {

struct Url {
    std::string scheme;  // "https" or "http"
    std::string host;    // lower case, an IPv6 address without brackets and in its shortest form
    std::string port;    // always there
    std::string target;  // path and query as they are sent, "/" at least; no fragment
};

// validation_failed when `text` is no such URL, names a user or is longer than 4096 bytes. The sentence quotes nothing
// of what follows the host: it may be a secret.
[[nodiscard]] base::Result<Url> parse_url(std::string_view text);

// Where `reference` (a Location header: absolute or relative) leads from `base`. What browsers accept though RFC 3986
// doesn't, spaces and bytes above 0x7F, is percent-encoded.
[[nodiscard]] base::Result<Url> resolve(const Url& base, std::string_view reference);

[[nodiscard]] std::string to_string(const Url& url);         // without a port that goes without saying
[[nodiscard]] std::string without_query(const Url& url);     // as sentences show it
[[nodiscard]] std::string authority_of(const Url& url);      // "host:443", "[::1]:443"
[[nodiscard]] bool same_origin(const Url& a, const Url& b);  // scheme, host and port

}  // namespace ghost::net
