#include "net/network_view.hpp"

#include "net/netlink_bytes.hpp"

#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

namespace ghost::net {
namespace {

using netlink::after;
using netlink::Bytes;
using netlink::front;
using netlink::take_attribute;

constexpr std::size_t most = 16'384;  // of each kind; what is beyond isn't kept, and always counts as a change

std::string text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

bool is_unusable(const ifaddrmsg& address) {
    const bool tentative = (address.ifa_flags & IFA_F_TENTATIVE) != 0 && (address.ifa_flags & IFA_F_OPTIMISTIC) == 0;
    return tentative || (address.ifa_flags & IFA_F_DADFAILED) != 0;
}

}  // namespace

bool is_guest_interface(std::string_view name) {
    static constexpr std::array<std::string_view, 9> prefixes{"vnet",   "virbr", "veth", "macvtap", "docker",
                                                              "podman", "cni",   "lxc",  "lxd"};
    // "br-0123456789ab": a network of Docker's.
    constexpr std::string_view docker_bridge = "br-";
    constexpr std::size_t docker_id = 12;
    const auto id = name.starts_with(docker_bridge) ? name.substr(docker_bridge.size()) : std::string_view{};
    const bool is_docker = id.size() == docker_id && id.find_first_not_of("0123456789abcdef") == std::string_view::npos;
    return is_docker ||
           std::ranges::any_of(prefixes, [&](std::string_view prefix) { return name.starts_with(prefix); });
}

void NetworkView::clear() {
    interfaces_.clear();
    addresses_.clear();
    routes_.clear();
}

NetworkView::Told NetworkView::take(Bytes datagram) {
    Told told;
    while (!datagram.empty()) {
        const auto header = front<nlmsghdr>(datagram);
        if (!header || header->nlmsg_len < sizeof(nlmsghdr) || header->nlmsg_len > datagram.size()) {
            told.interrupted = true;
            break;
        }
        const auto body = datagram.subspan(sizeof(nlmsghdr), header->nlmsg_len - sizeof(nlmsghdr));
        datagram = after(datagram, header->nlmsg_len);
        if ((header->nlmsg_flags & NLM_F_DUMP_INTR) != 0) told.interrupted = true;
        bool changed = false;
        switch (header->nlmsg_type) {
            case NLMSG_DONE:
            case NLMSG_ERROR: told.dump_ended = true; break;
            case RTM_NEWLINK: changed = take_link(body, false); break;
            case RTM_DELLINK: changed = take_link(body, true); break;
            case RTM_NEWADDR: changed = take_address(body, false); break;
            case RTM_DELADDR: changed = take_address(body, true); break;
            case RTM_NEWROUTE: changed = take_route(body, false, (header->nlmsg_flags & NLM_F_REPLACE) != 0); break;
            case RTM_DELROUTE: changed = take_route(body, true, false); break;
            default: break;
        }
        told.changed = told.changed || changed;
    }
    return told;
}

bool NetworkView::is_guests(int interface) const {
    const auto found = interfaces_.find(interface);
    if (found == interfaces_.end()) return false;
    const auto& [name, has_master] = found->second;
    return is_guest_interface(name) || (has_master && name.starts_with("tap"));
}

// IPv4's routes through an interface that goes down or away go without a word.
bool NetworkView::forget_routes_of(int interface) {
    return std::erase_if(routes_, [interface](const Route& route) { return route.interfaces.contains(interface); }) > 0;
}

bool NetworkView::take_link(Bytes body, bool removed) {
    const auto link = front<ifinfomsg>(body);
    // A bridge's port that leaves is told of as removed, too, in the bridge's family.
    if (!link || link->ifi_family != AF_UNSPEC) return false;
    if (removed) {
        const bool had_routes = forget_routes_of(link->ifi_index);
        const auto had_addresses =
            std::erase_if(addresses_, [&](const Address& address) { return address.first == link->ifi_index; }) > 0;
        interfaces_.erase(link->ifi_index);
        return had_routes || had_addresses;
    }
    Interface told;
    auto rest = after(body, sizeof(ifinfomsg));
    while (const auto attribute = take_attribute(rest)) {
        if (attribute->type == IFLA_MASTER) told.has_master = true;
        if (attribute->type != IFLA_IFNAME) continue;
        const auto text = text_of(attribute->value);
        told.name = text.substr(0, std::min<std::size_t>(text.find('\0'), IFNAMSIZ));
    }
    if (!told.name.empty() && (interfaces_.size() < most || interfaces_.contains(link->ifi_index)))
        interfaces_.insert_or_assign(link->ifi_index, std::move(told));
    return (link->ifi_flags & IFF_UP) == 0 && forget_routes_of(link->ifi_index);
}

bool NetworkView::take_address(Bytes body, bool removed) {
    const auto head = front<ifaddrmsg>(body);
    if (!head || head->ifa_scope != RT_SCOPE_UNIVERSE) return false;
    const auto interface = static_cast<int>(head->ifa_index);
    if (is_guests(interface)) return false;
    std::string address;
    auto rest = after(body, sizeof(ifaddrmsg));
    // On a point-to-point interface IFA_ADDRESS is the other side's.
    while (const auto attribute = take_attribute(rest))
        if (attribute->type == IFA_LOCAL || (attribute->type == IFA_ADDRESS && address.empty()))
            address = text_of(attribute->value);
    if (address.empty() || address.size() > 16) return false;
    Address known{interface, std::move(address)};
    if (removed) return addresses_.erase(known) > 0;
    if (is_unusable(*head)) return false;
    if (addresses_.size() >= most) return !addresses_.contains(known);
    return addresses_.insert(std::move(known)).second;
}

bool NetworkView::take_route(Bytes body, bool removed, bool replaces) {
    const auto head = front<rtmsg>(body);
    if (!head || head->rtm_dst_len != 0 || head->rtm_type != RTN_UNICAST) return false;
    if ((head->rtm_flags & RTM_F_CLONED) != 0 || (head->rtm_family != AF_INET && head->rtm_family != AF_INET6))
        return false;
    std::uint32_t table = head->rtm_table;
    Route route;
    route.family = head->rtm_family;
    auto rest = after(body, sizeof(rtmsg));
    while (const auto attribute = take_attribute(rest)) {
        switch (attribute->type) {
            case RTA_TABLE: table = front<std::uint32_t>(attribute->value).value_or(table); break;
            case RTA_PRIORITY: route.priority = front<std::uint32_t>(attribute->value).value_or(0); break;
            case RTA_OIF:
                if (const auto interface = front<int>(attribute->value)) route.interfaces.insert(*interface);
                break;
            case RTA_GATEWAY:
            case RTA_VIA:
            case RTA_PREFSRC: {
                const auto length = std::min<std::size_t>(attribute->value.size(), 32);
                route.next_hops += static_cast<char>(attribute->type);
                route.next_hops += text_of(attribute->value.first(length));
                break;
            }
            case RTA_MULTIPATH: {
                auto hops = attribute->value;
                while (const auto hop = front<rtnexthop>(hops)) {
                    if (hop->rtnh_len < sizeof(rtnexthop) || hop->rtnh_len > hops.size()) break;
                    if (route.interfaces.size() < 256) route.interfaces.insert(hop->rtnh_ifindex);
                    if (route.next_hops.size() < 4096) {
                        // Without its flags, which tell of the link's state.
                        route.next_hops += text_of(hops.subspan(sizeof(rtnexthop), hop->rtnh_len - sizeof(rtnexthop)));
                    }
                    hops = after(hops, hop->rtnh_len);
                }
                break;
            }
            default: break;
        }
    }
    if (table != RT_TABLE_MAIN) return false;
    if (!route.interfaces.empty() &&
        std::ranges::all_of(route.interfaces, [this](int interface) { return is_guests(interface); }))
        return false;
    if (removed) return routes_.erase(route) > 0;
    bool changed = false;
    if (replaces)
        changed = std::erase_if(routes_, [&](const Route& old) {
                      return old.family == route.family && old.priority == route.priority && old != route;
                  }) > 0;
    if (routes_.size() >= most) return changed || !routes_.contains(route);
    return routes_.insert(std::move(route)).second || changed;
}

}  // namespace ghost::net
