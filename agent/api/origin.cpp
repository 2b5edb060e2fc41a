#include "agent/api/origin.hpp"

#include "net/text.hpp"

#include <string>
#include <string_view>

namespace ghost::agent::api {
namespace {

// "host:port" with the port that `scheme` has when none is named.
std::string authority(std::string_view scheme, std::string_view text) {
    auto out = net::to_lower(text);
    const auto bracket = out.rfind(']');
    const auto colon = out.rfind(':');
    if (colon == std::string::npos || (bracket != std::string::npos && colon < bracket))
        out += scheme == "http" ? ":80" : ":443";
    return out;
}

}  // namespace

bool from_own_page(const net::Request& request) {
    const auto origin = request.headers.find("Origin");
    if (!origin) return true;
    const auto scheme_end = origin->find("://");
    const auto host = request.headers.find("Host");
    if (scheme_end == std::string_view::npos || !host) return false;
    const auto scheme = net::to_lower(origin->substr(0, scheme_end));
    return authority(scheme, origin->substr(scheme_end + 3)) == authority(scheme, *host);
}

}  // namespace ghost::agent::api
