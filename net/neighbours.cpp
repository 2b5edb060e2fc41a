#include "net/neighbours.hpp"

#include "base/descriptor.hpp"
#include "net/netlink_bytes.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

namespace ghost::net {
namespace {

namespace ip = boost::asio::ip;
using netlink::after;
using netlink::aligned;
using netlink::Bytes;
using netlink::front;
using netlink::take_attribute;

constexpr std::size_t room = 8192;  // an answer is one message of a few attributes
constexpr int reads = 4;            // of datagrams that may be others'
constexpr unsigned answered = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT;
constexpr std::size_t ethernet = 6;

std::vector<std::byte> bytes_of(const ip::address& address) {
    const auto copy = [](const auto& raw) {
        std::vector<std::byte> bytes(raw.size());
        std::memcpy(bytes.data(), raw.data(), raw.size());
        return bytes;
    };
    return address.is_v4() ? copy(address.to_v4().to_bytes()) : copy(address.to_v6().to_bytes());
}

unsigned char family_of(const ip::address& address) { return address.is_v4() ? AF_INET : AF_INET6; }

// The first message's body, when it is of this type.
std::optional<Bytes> body_of(Bytes answer, std::uint16_t type) {
    const auto header = front<nlmsghdr>(answer);
    if (!header || header->nlmsg_type != type || header->nlmsg_len < sizeof(nlmsghdr) ||
        header->nlmsg_len > answer.size())
        return std::nullopt;
    return answer.subspan(sizeof(nlmsghdr), header->nlmsg_len - sizeof(nlmsghdr));
}

// The value of the attribute of this type among those that follow a struct of `skip` bytes; nullopt: there is none.
std::optional<Bytes> attribute_in(Bytes body, std::size_t skip, unsigned type) {
    auto rest = after(body, skip);
    while (const auto attribute = take_attribute(rest))
        if (attribute->type == type) return attribute->value;
    return std::nullopt;
}

// One question about one address, and the bytes that the kernel answers; empty: it didn't.
template <class Body>
std::vector<std::byte> ask(std::uint16_t type, const Body& body, std::uint16_t attribute, const ip::address& address) {
    const auto value = bytes_of(address);
    std::array<std::byte, 128> request{};
    const std::size_t length = NLMSG_LENGTH(aligned(sizeof body)) + sizeof(rtattr) + value.size();
    nlmsghdr header{};
    header.nlmsg_len = static_cast<std::uint32_t>(length);
    header.nlmsg_type = type;
    header.nlmsg_flags = NLM_F_REQUEST;
    header.nlmsg_seq = 1;
    rtattr about{};
    about.rta_len = static_cast<std::uint16_t>(sizeof about + value.size());
    about.rta_type = attribute;
    auto* at = request.data();
    std::memcpy(at, &header, sizeof header);
    std::memcpy(at + NLMSG_HDRLEN, &body, sizeof body);
    at += NLMSG_LENGTH(aligned(sizeof body));
    std::memcpy(at, &about, sizeof about);
    std::memcpy(at + sizeof about, value.data(), value.size());

    const base::Descriptor socket{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE)};
    if (!socket || ::send(socket.get(), request.data(), length, MSG_DONTWAIT) < 0) return {};
    std::vector<std::byte> answer(room);
    for (int i = 0; i < reads; ++i) {
        sockaddr_nl sender{};
        socklen_t size = sizeof sender;
        const auto got = ::recvfrom(socket.get(), answer.data(), answer.size(), MSG_DONTWAIT,
                                    reinterpret_cast<sockaddr*>(&sender), &size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return {};
        if (sender.nl_pid != 0) continue;  // not the kernel
        answer.resize(static_cast<std::size_t>(got));
        return answer;
    }
    return {};
}

std::vector<std::byte> way_to(const ip::address& address) {
    rtmsg route{};
    route.rtm_family = family_of(address);
    route.rtm_dst_len = address.is_v4() ? 32 : 128;
    return ask(RTM_GETROUTE, route, RTA_DST, address);
}

}  // namespace

std::optional<bool> is_local_in(Bytes answer) {
    const auto body = body_of(answer, RTM_NEWROUTE);
    const auto route = body ? front<rtmsg>(*body) : std::nullopt;
    if (!route) return std::nullopt;
    return route->rtm_type == RTN_LOCAL || route->rtm_type == RTN_BROADCAST || route->rtm_type == RTN_ANYCAST;
}

std::optional<int> direct_interface_in(Bytes answer) {
    const auto body = body_of(answer, RTM_NEWROUTE);
    const auto route = body ? front<rtmsg>(*body) : std::nullopt;
    if (!route || route->rtm_type != RTN_UNICAST) return std::nullopt;
    if (attribute_in(*body, sizeof(rtmsg), RTA_GATEWAY) || attribute_in(*body, sizeof(rtmsg), RTA_VIA))
        return std::nullopt;
    const auto interface = attribute_in(*body, sizeof(rtmsg), RTA_OIF);
    return interface ? front<int>(*interface) : std::nullopt;
}

std::optional<std::string> link_address_in(Bytes answer, const ip::address& address) {
    const auto body = body_of(answer, RTM_NEWNEIGH);
    const auto neighbour = body ? front<ndmsg>(*body) : std::nullopt;
    if (!neighbour || (neighbour->ndm_state & answered) == 0) return std::nullopt;
    const auto whose = attribute_in(*body, sizeof(ndmsg), NDA_DST);
    const auto link = attribute_in(*body, sizeof(ndmsg), NDA_LLADDR);
    if (!whose || !link || link->size() != ethernet || !std::ranges::equal(*whose, bytes_of(address)))
        return std::nullopt;
    std::array<unsigned, ethernet> parts{};
    std::ranges::transform(*link, parts.begin(), [](std::byte byte) { return std::to_integer<unsigned>(byte); });
    return fmt::format("{:02x}", fmt::join(parts, ":"));
}

bool is_own_address(const ip::address& address) {
    const auto answer = way_to(address);
    // An address that nothing leads to is refused by the kernel with an error in the answer's place.
    return is_local_in(answer).value_or(answer.empty());
}

bool is_on_link(const ip::address& address) { return direct_interface_in(way_to(address)).has_value(); }

std::optional<std::string> link_address_of(const ip::address& address) {
    const auto interface = direct_interface_in(way_to(address));
    if (!interface) return std::nullopt;
    ndmsg neighbour{};
    neighbour.ndm_family = family_of(address);
    neighbour.ndm_ifindex = *interface;
    return link_address_in(ask(RTM_GETNEIGH, neighbour, NDA_DST, address), address);
}

}  // namespace ghost::net
