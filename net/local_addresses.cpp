#include "net/local_addresses.hpp"

#include "net/network_view.hpp"

#include <boost/asio/ip/address.hpp>

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

namespace ghost::net {
namespace {

namespace ip = boost::asio::ip;

constexpr std::size_t most = 16;
constexpr std::size_t most_routes = 1024;  // the default ones come first

std::optional<ip::address> address_of(const sockaddr* socket_address) {
    if (socket_address == nullptr) return std::nullopt;
    if (socket_address->sa_family == AF_INET) {
        sockaddr_in v4{};
        std::memcpy(&v4, socket_address, sizeof v4);
        return ip::address_v4{ntohl(v4.sin_addr.s_addr)};
    }
    if (socket_address->sa_family != AF_INET6) return std::nullopt;
    sockaddr_in6 v6{};
    std::memcpy(&v6, socket_address, sizeof v6);
    ip::address_v6::bytes_type bytes{};
    std::memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
    return ip::address_v6{bytes};
}

bool is_global(const ip::address& address) {
    if (address.is_loopback() || address.is_unspecified() || address.is_multicast()) return false;
    if (address.is_v6()) return !address.to_v6().is_link_local();
    return (address.to_v4().to_uint() >> 16U) != 0xA9FE;  // 169.254.0.0/16
}

// The words of each line of a file of /proc/net, of this thread's network.
std::vector<std::vector<std::string>> table(const char* name) {
    std::vector<std::vector<std::string>> lines;
    std::ifstream file{std::string{"/proc/thread-self/net/"} + name};
    for (std::string line; lines.size() < most_routes && std::getline(file, line);) {
        std::istringstream words{line};
        lines.emplace_back(std::istream_iterator<std::string>{words}, std::istream_iterator<std::string>{});
    }
    return lines;
}

// The interfaces that default routes go through.
std::set<std::string> ways_out() {
    std::set<std::string> names;
    // Iface Destination Gateway Flags RefCnt Use Metric Mask ...
    for (const auto& line : table("route"))
        if (line.size() > 7 && line[1] == "00000000" && line[7] == "00000000") names.insert(line[0]);
    // Destination and its length, source and its length, next hop, metric, two counters, flags, interface. What is
    // unreachable goes through lo.
    for (const auto& line : table("ipv6_route"))
        if (line.size() > 9 && line[0] == std::string(32, '0') && line[1] == "00") names.insert(line[9]);
    return names;
}

}  // namespace

std::vector<std::string> local_addresses() {
    ifaddrs* first = nullptr;
    if (::getifaddrs(&first) != 0) return {};
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> all{first, &::freeifaddrs};
    const auto out = ways_out();
    std::set<ip::address> found;  // IPv4 sorts first
    std::set<ip::address> beside;
    for (const auto* entry = first; entry != nullptr; entry = entry->ifa_next) {
        if ((entry->ifa_flags & IFF_UP) == 0 || is_guest_interface(entry->ifa_name)) continue;
        if (const auto address = address_of(entry->ifa_addr); address && is_global(*address))
            (out.contains(entry->ifa_name) ? found : beside).insert(*address);
    }
    std::vector<std::string> texts;
    for (const auto* const addresses : {&found, &beside})
        for (const auto& address : *addresses)
            if (texts.size() < most && (addresses == &found || !found.contains(address)))
                texts.push_back(address.to_string());
    return texts;
}

}  // namespace ghost::net
