#include "agent/core/local_addresses.hpp"

#include <boost/asio/ip/address.hpp>

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>

namespace ghost::agent {
namespace {

namespace ip = boost::asio::ip;

constexpr std::size_t most = 64;

std::optional<ip::address> address_of(const sockaddr* raw) {
    if (raw == nullptr) return std::nullopt;
    if (raw->sa_family == AF_INET) {
        sockaddr_in v4{};
        std::memcpy(&v4, raw, sizeof v4);
        return ip::address_v4{ntohl(v4.sin_addr.s_addr)};
    }
    if (raw->sa_family != AF_INET6) return std::nullopt;
    sockaddr_in6 v6{};
    std::memcpy(&v6, raw, sizeof v6);
    ip::address_v6::bytes_type bytes;
    std::memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
    return ip::address_v6{bytes};
}

bool link_local(const ip::address& address) {
    if (address.is_v6()) return address.to_v6().is_link_local();
    return (address.to_v4().to_uint() >> 16U) == 0xA9FEU;  // 169.254.0.0/16
}

}  // namespace

std::vector<std::string> local_addresses() {
    ifaddrs* list = nullptr;
    if (::getifaddrs(&list) != 0) return {};
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owned{list, &::freeifaddrs};
    std::vector<std::string> v4;
    std::vector<std::string> v6;
    for (const auto* each = list; each != nullptr; each = each->ifa_next) {
        const auto address = address_of(each->ifa_addr);
        if (!address || (each->ifa_flags & IFF_UP) == 0 || address->is_loopback() || link_local(*address)) continue;
        (address->is_v4() ? v4 : v6).push_back(address->to_string());
    }
    v4.insert(v4.end(), v6.begin(), v6.end());
    if (v4.size() > most) v4.resize(most);
    return v4;
}

}  // namespace ghost::agent
