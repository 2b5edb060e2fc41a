#include "agent/cli/port_words.hpp"

#include "agent/cli/commands.hpp"
#include "agent/cli/option_values.hpp"
#include "agent/cli/text.hpp"

#include <boost/asio/ip/address.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace ghost::cli {
namespace {

constexpr std::string_view loopback = "127.0.0.1";

std::optional<std::uint16_t> number_of(std::string_view text) {
    std::uint16_t port = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), port);
    return fault == std::errc{} && end == text.data() + text.size() ? std::optional{port} : std::nullopt;
}

struct Parts {
    std::string_view address;  // empty: none
    std::string_view host_port;
    std::string_view guest_port;
};

// Cuts at the last two colons; an IPv6 address stands in brackets.
std::optional<Parts> parts_of(std::string_view text) {
    const auto last = text.rfind(':');
    if (last == std::string_view::npos) return std::nullopt;
    Parts parts{{}, text.substr(0, last), text.substr(last + 1)};
    if (const auto before = parts.host_port.rfind(':'); before != std::string_view::npos) {
        parts.address = parts.host_port.substr(0, before);
        parts.host_port = parts.host_port.substr(before + 1);
        if (parts.address.empty()) return std::nullopt;
    }
    return parts;
}

// As IP addresses are written, without brackets; empty when it is none.
std::string address_of(std::string_view text) {
    if (text.empty() || text == "localhost") return std::string{loopback};
    const bool in_brackets = text.starts_with('[') && text.ends_with(']');
    if (text.contains(':') != in_brackets) return {};
    if (in_brackets) text = text.substr(1, text.size() - 2);
    boost::system::error_code fault;
    const auto address = boost::asio::ip::make_address(text, fault);
    return fault ? std::string{} : address.to_string();
}

}  // namespace

std::uint16_t port_of(std::string_view option, const std::string& text) {
    const auto port = number_of(text);
    if (!port || *port == 0) usage_fault(fmt::format("{} '{}': expected a port, 1 to 65535", option, printable(text)));
    return *port;
}

PortForward port_forward_of(std::string_view option, const std::string& text) {
    const auto parts = parts_of(text);
    PortForward out;
    if (parts) {
        out.host_address = address_of(parts->address);
        out.host_port = number_of(parts->host_port).value_or(0);
        out.guest_port = number_of(parts->guest_port).value_or(0);
    }
    const bool made_of_numbers = parts && number_of(parts->host_port);
    if (!made_of_numbers || out.host_address.empty() || out.guest_port == 0)
        usage_fault(fmt::format("{} '{}': expected [ADDRESS:]HOST_PORT:GUEST_PORT, like 8080:80; HOST_PORT 0 is any",
                                option, printable(text)));
    return out;
}

PortForward loopback_of(std::string_view option, const std::string& text) {
    const auto colon = text.rfind(':');
    const std::string_view address =
        colon == std::string::npos ? std::string_view{} : std::string_view{text}.substr(0, colon);
    const auto port = number_of(std::string_view{text}.substr(colon == std::string::npos ? 0 : colon + 1));
    PortForward out{colon == 0 ? std::string{} : address_of(address), port.value_or(0), 0};
    if (!port || out.host_address.empty())
        usage_fault(fmt::format("{} '{}': expected [127.0.0.1:]PORT", option, printable(text)));
    if (!boost::asio::ip::make_address(out.host_address).is_loopback())
        usage_fault(fmt::format("{} '{}': a screen asks for no password, so only this machine may reach it: 127.0.0.1",
                                option, printable(text)));
    return out;
}

std::pair<std::string, boost::json::object> lasting_forward_of(std::string_view option, const std::string& text) {
    constexpr std::string_view form = "NAME=[ADDRESS:]HOST_PORT:GUEST_PORT[/udp]";
    auto [name, value] = key_and_value(option, text, form);
    std::string_view rest = value;
    std::string_view protocol = "tcp";
    if (const auto slash = rest.rfind('/'); slash != std::string_view::npos) {
        protocol = rest.substr(slash + 1);
        rest = rest.substr(0, slash);
    }
    const auto parts = parts_of(rest);
    const auto host_port = parts ? number_of(parts->host_port).value_or(0) : 0;
    const auto guest_port = parts ? number_of(parts->guest_port).value_or(0) : 0;
    if (host_port == 0 || guest_port == 0 || (protocol != "tcp" && protocol != "udp"))
        usage_fault(fmt::format("{} '{}': expected {}", option, printable(text), form));
    boost::json::object forward;
    // Which addresses there may be, the agent says.
    if (!parts->address.empty()) forward["host_address"] = parts->address == "localhost" ? loopback : parts->address;
    forward["host_port"] = host_port;
    forward["guest_port"] = guest_port;
    if (protocol == "udp") forward["protocol"] = protocol;
    return {std::move(name), std::move(forward)};
}

}  // namespace ghost::cli
