#include "net/server.hpp"
#include "net/text.hpp"

#include <boost/asio/ip/address.hpp>

#include <charconv>

namespace ghost::net {
namespace {

namespace asio = boost::asio;

std::unexpected<base::Error> not_an_endpoint(std::string_view text) {
    return base::fail(base::Errc::validation_failed,
                      "expected an address and a port like \"127.0.0.1:9092\", "
                      "\"[::1]:9092\" or \":9092\", got \"" +
                          std::string{text} + "\"");
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return port;
}

// Without brackets and with "localhost" and the empty address made numeric.
std::optional<std::string> parse_host(std::string_view text) {
    if (text.empty()) return "::";
    if (same_token(text, "localhost")) return "127.0.0.1";
    const bool bracketed = text.front() == '[' && text.back() == ']' && text.size() > 2;
    if (bracketed) text = text.substr(1, text.size() - 2);
    boost::system::error_code error;
    const auto address = asio::ip::make_address(std::string{text}, error);
    if (error || address.is_v6() != bracketed) return std::nullopt;
    return address.to_string();
}

}  // namespace

base::Result<TcpEndpoint> parse_tcp_endpoint(std::string_view text) {
    const auto colon = text.rfind(':');
    if (colon == std::string_view::npos) return not_an_endpoint(text);
    const auto port = parse_port(text.substr(colon + 1));
    auto host = parse_host(text.substr(0, colon));
    if (!port || !host) return not_an_endpoint(text);
    return TcpEndpoint{*std::move(host), *port};
}

bool is_loopback(const TcpEndpoint& endpoint) {
    boost::system::error_code error;
    const auto address = asio::ip::make_address(endpoint.address, error);
    if (error) return false;
    if (address.is_v6() && address.to_v6().is_v4_mapped())
        return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).is_loopback();
    return address.is_loopback();
}

std::string to_string(const Endpoint& endpoint) {
    if (const auto* unix_socket = std::get_if<UnixEndpoint>(&endpoint)) return unix_socket->path;
    const auto& tcp = std::get<TcpEndpoint>(endpoint);
    const bool v6 = tcp.address.find(':') != std::string::npos;
    return (v6 ? "[" + tcp.address + "]" : tcp.address) + ":" + std::to_string(tcp.port);
}

}  // namespace ghost::net
