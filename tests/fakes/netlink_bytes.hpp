// Messages of rtnetlink as the kernel sends them, byte by byte.
#pragma once

#include <boost/asio/ip/address.hpp>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace ghost::fakes {

class NetlinkBytes {
public:
    // Begins a message; what follows belongs to it.
    template <class Body>
    NetlinkBytes& message(std::uint16_t type, const Body& body, std::uint16_t flags = 0) {
        begin_ = bytes_.size();
        nlmsghdr header{};
        header.nlmsg_type = type;
        header.nlmsg_flags = flags;
        append(&header, sizeof header);
        append(&body, sizeof body);
        return close();
    }
    NetlinkBytes& attribute(std::uint16_t type, std::string_view value) {
        rtattr header{};
        header.rta_len = static_cast<std::uint16_t>(sizeof header + value.size());
        header.rta_type = type;
        append(&header, sizeof header);
        append(value.data(), value.size());
        return close();
    }
    template <class T>
        requires std::is_integral_v<T>
    NetlinkBytes& attribute(std::uint16_t type, T value) {
        return attribute(type, std::string_view{reinterpret_cast<const char*>(&value), sizeof value});
    }
    NetlinkBytes& address(std::uint16_t type, const char* text) {
        const auto parsed = boost::asio::ip::make_address(text);
        if (parsed.is_v4()) {
            const auto raw = parsed.to_v4().to_bytes();
            return attribute(type, std::string_view{reinterpret_cast<const char*>(raw.data()), raw.size()});
        }
        const auto raw = parsed.to_v6().to_bytes();
        return attribute(type, std::string_view{reinterpret_cast<const char*>(raw.data()), raw.size()});
    }

    NetlinkBytes& link(int index, std::string_view name, unsigned flags = IFF_UP, std::uint16_t type = RTM_NEWLINK) {
        ifinfomsg body{};
        body.ifi_index = index;
        body.ifi_flags = flags;
        return message(type, body).attribute(IFLA_IFNAME, std::string{name} + '\0');
    }
    NetlinkBytes& host_address(int index, const char* text, std::uint16_t type = RTM_NEWADDR,
                               std::uint8_t scope = RT_SCOPE_UNIVERSE, std::uint8_t flags = 0) {
        ifaddrmsg body{};
        body.ifa_family = std::string_view{text}.contains(':') ? AF_INET6 : AF_INET;
        body.ifa_index = static_cast<unsigned>(index);
        body.ifa_scope = scope;
        body.ifa_flags = flags;
        return message(type, body).address(IFA_ADDRESS, text);
    }
    NetlinkBytes& default_route(int index, const char* gateway, std::uint16_t type = RTM_NEWROUTE,
                                std::uint16_t flags = 0, std::uint32_t priority = 100) {
        rtmsg body{};
        body.rtm_family = std::string_view{gateway}.contains(':') ? AF_INET6 : AF_INET;
        body.rtm_table = RT_TABLE_MAIN;
        body.rtm_type = RTN_UNICAST;
        return message(type, body, flags)
            .attribute(RTA_PRIORITY, priority)
            .address(RTA_GATEWAY, gateway)
            .attribute(RTA_OIF, index);
    }
    NetlinkBytes& done() { return message(NLMSG_DONE, std::int32_t{0}, NLM_F_MULTI); }

    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

private:
    void append(const void* data, std::size_t size) {
        const auto* const from = static_cast<const std::byte*>(data);
        bytes_.insert(bytes_.end(), from, from + size);
    }
    // Writes the message's length so far, and pads it.
    NetlinkBytes& close() {
        const auto length = static_cast<std::uint32_t>(bytes_.size() - begin_);
        std::memcpy(bytes_.data() + begin_, &length, sizeof length);
        bytes_.resize((bytes_.size() + 3U) & ~std::size_t{3});
        return *this;
    }

    std::vector<std::byte> bytes_;
    std::size_t begin_ = 0;
};

}  // namespace ghost::fakes
