// What netlink's messages are made of: structs of the kernel's and attributes,
// each at a multiple of four bytes. Lengths come from outside and are believed
// only as far as there are bytes.
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>

namespace ghost::net::netlink {

using Bytes = std::span<const std::byte>;

// A kernel's struct at the front; nullopt when there are too few bytes.
template <class T>
[[nodiscard]] std::optional<T> front(Bytes bytes) {
    if (bytes.size() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

[[nodiscard]] constexpr std::size_t aligned(std::size_t length) { return (length + 3U) & ~std::size_t{3}; }

[[nodiscard]] inline Bytes after(Bytes bytes, std::size_t length) {
    return bytes.subspan(std::min(bytes.size(), aligned(length)));
}

struct Attribute {
    unsigned type = 0;
    Bytes value;
};

// Takes the next attribute off the front; nullopt at the end, or where lengths don't add up.
[[nodiscard]] inline std::optional<Attribute> take_attribute(Bytes& rest) {
    const auto header = front<rtattr>(rest);
    if (!header || header->rta_len < sizeof(rtattr) || header->rta_len > rest.size()) return std::nullopt;
    const auto value = rest.subspan(sizeof(rtattr), header->rta_len - sizeof(rtattr));
    rest = after(rest, header->rta_len);
    return Attribute{static_cast<unsigned>(header->rta_type & NLA_TYPE_MASK), value};
}

}  // namespace ghost::net::netlink
