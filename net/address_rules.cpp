#include "net/address_rules.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <string>
#include <vector>

namespace ghost::net {
namespace {

namespace ip = boost::asio::ip;

constexpr std::array special_v4 = {
    "0.0.0.0/8",        // this network
    "10.0.0.0/8",       // private
    "100.64.0.0/10",    // behind a carrier's NAT
    "127.0.0.0/8",      // loopback
    "169.254.0.0/16",   // link-local, with the clouds' metadata services
    "172.16.0.0/12",    // private
    "192.0.0.0/24",     // protocol assignments
    "192.0.2.0/24",     // documentation
    "192.88.99.0/24",   // 6to4 relays, deprecated
    "192.168.0.0/16",   // private
    "198.18.0.0/15",    // benchmarks
    "198.51.100.0/24",  // documentation
    "203.0.113.0/24",   // documentation
    "224.0.0.0/4",      // multicast
    "240.0.0.0/4",      // reserved, and broadcast
};

// Within 2000::/3; nothing outside of it is global unicast.
constexpr std::array special_v6 = {
    "2001::/23",      // protocol assignments: Teredo, benchmarks, ORCHID
    "2001:db8::/32",  // documentation
    "3fff::/20",      // documentation
};

struct Embedding {
    const char* network;
    std::size_t first_byte;  // of the IPv4 address in the IPv6 one
};
constexpr std::array embeddings = {
    Embedding{"::ffff:0.0.0.0/96", 12},  // mapped
    Embedding{"64:ff9b::/96", 12},       // NAT64
    Embedding{"2002::/16", 2},           // 6to4
};

Network known(const char* text) { return parse_network(text).value(); }

std::vector<Network> all_of(std::span<const char* const> texts) {
    std::vector<Network> networks;
    networks.reserve(texts.size());
    std::ranges::transform(texts, std::back_inserter(networks), known);
    return networks;
}

bool any_contains(const std::vector<Network>& networks, const ip::address& address) {
    return std::ranges::any_of(networks, [&](const Network& network) { return contains(network, address); });
}

template <class Bytes>
bool same_prefix(const Bytes& a, const Bytes& b, unsigned bits) {
    const auto whole = bits / 8;
    if (!std::equal(a.begin(), a.begin() + whole, b.begin())) return false;
    const auto rest = bits % 8;
    return rest == 0 || (a[whole] >> (8 - rest)) == (b[whole] >> (8 - rest));
}

}  // namespace

std::optional<Network> parse_network(std::string_view text) {
    const auto slash = text.find('/');
    boost::system::error_code error;
    const auto address = ip::make_address(std::string{text.substr(0, slash)}, error);
    if (error) return std::nullopt;
    const unsigned bits = address.is_v4() ? 32 : 128;
    if (slash == std::string_view::npos) return Network{address, bits};
    unsigned prefix = 0;
    const auto* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + slash + 1, end, prefix);
    if (parsed.ec != std::errc{} || parsed.ptr != end || prefix > bits) return std::nullopt;
    return Network{address, prefix};
}

bool contains(const Network& network, const ip::address& address) {
    if (network.address.is_v4() != address.is_v4()) return false;
    if (address.is_v4())
        return same_prefix(network.address.to_v4().to_bytes(), address.to_v4().to_bytes(), network.prefix);
    return same_prefix(network.address.to_v6().to_bytes(), address.to_v6().to_bytes(), network.prefix);
}

bool is_public(const ip::address& address) {
    static const auto v4 = all_of(special_v4);
    static const auto v6 = all_of(special_v6);
    static const auto global = known("2000::/3");
    if (address.is_v4()) return !any_contains(v4, address);
    const auto bytes = address.to_v6().to_bytes();
    for (const auto& [network, at] : embeddings)
        if (contains(known(network), address))
            return is_public(ip::address_v4{{bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]}});
    return contains(global, address) && !any_contains(v6, address);
}

}  // namespace ghost::net
