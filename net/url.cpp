#include "net/url.hpp"

#include "net/text.hpp"

#include <boost/asio/ip/address.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/url.hpp>

#include <algorithm>

namespace ghost::net {
namespace {

namespace urls = boost::urls;

constexpr std::size_t length_limit = 4096;
constexpr std::size_t host_limit = 253;

std::unexpected<base::Error> unusable(const std::string& why) {
    return base::fail(base::Errc::validation_failed,
                      "not a usable URL: " + why + "; what is allowed looks like https://host[:port]/path?query");
}

std::string_view usual_port(std::string_view scheme) { return scheme == "https" ? "443" : "80"; }

bool is_host_name(std::string_view host) {
    const auto fits = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    };
    return !host.empty() && host.size() <= host_limit && std::ranges::all_of(host, fits) && host.front() != '.' &&
           host.back() != '.' && host.find("..") == std::string_view::npos;
}

base::Result<std::string> host_of(const urls::url_view_base& url) {
    const std::string_view address{url.encoded_host_address().data(), url.encoded_host_address().size()};
    auto host = to_lower(address);
    switch (url.host_type()) {
        case urls::host_type::ipv4: return host;
        case urls::host_type::ipv6: return boost::asio::ip::make_address_v6(host).to_string();
        case urls::host_type::name: break;
        default: return unusable("it names no host");
    }
    if (host.ends_with('.')) host.pop_back();
    if (host.empty()) return unusable("it names no host");
    if (!is_host_name(host))
        return unusable("its host is not a DNS name or an address (names outside ASCII go in their xn-- form)");
    return host;
}

base::Result<std::string> port_of(const urls::url_view_base& url, std::string_view scheme) {
    if (!url.has_port() || url.port().empty()) return std::string{usual_port(scheme)};
    if (url.port_number() == 0) return unusable("its port is not one of 1 to 65535");
    return std::to_string(url.port_number());
}

// Boost.URL 1.81 takes what follows a port's digits for a path: "host:80x/".
bool has_whole_authority(const urls::url_view_base& url) {
    return !url.has_authority() || url.encoded_path().empty() || url.encoded_path().starts_with('/');
}

// Nothing is above the root, where Boost.URL leaves "/../" standing.
void drop_parents_of_root(std::string& target) {
    while (target.starts_with("/../")) target.erase(0, 3);
    if (target == "/.." || target.starts_with("/..?")) target.erase(1, 2);
}

base::Result<Url> taken_apart(const urls::url_view_base& parsed) {
    Url url;
    url.scheme = to_lower({parsed.scheme().data(), parsed.scheme().size()});
    if (url.scheme != "https" && url.scheme != "http") return unusable("its scheme is not https");
    if (!parsed.has_authority()) return unusable("it names no host");
    if (parsed.has_userinfo()) return unusable("it names a user or a password");
    auto host = host_of(parsed);
    if (!host) return base::fail(std::move(host.error()));
    auto port = port_of(parsed, url.scheme);
    if (!port) return base::fail(std::move(port.error()));
    url.host = *std::move(host);
    url.port = *std::move(port);
    const auto target = parsed.encoded_target();
    if (!target.starts_with('/')) url.target = "/";
    url.target.append(target.data(), target.size());
    return url;
}

// Percent-encodes what no URL may hold.
std::string tolerated(std::string_view reference) {
    static constexpr std::string_view digits = "0123456789ABCDEF";
    static constexpr std::string_view unfit = " \"<>\\^`{|}";
    std::string text;
    for (const char c : reference) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x80 && unfit.find(c) == std::string_view::npos) {
            text.push_back(c);
        } else {
            text.push_back('%');
            text.push_back(digits[byte >> 4U]);
            text.push_back(digits[byte & 0xFU]);
        }
    }
    return text;
}

std::string host_and_port(const Url& url, bool with_port) {
    const bool v6 = url.host.find(':') != std::string::npos;
    return (v6 ? "[" + url.host + "]" : url.host) + (with_port ? ":" + url.port : "");
}

}  // namespace

base::Result<Url> parse_url(std::string_view text) {
    if (text.empty()) return unusable("it is empty");
    if (text.size() > length_limit)
        return unusable("it is longer than " + std::to_string(length_limit) + " characters");
    const auto parsed = urls::parse_uri(text);
    if (!parsed || !has_whole_authority(*parsed)) return unusable("it is malformed");
    return taken_apart(*parsed);
}

base::Result<Url> resolve(const Url& base, std::string_view reference) {
    if (reference.size() > length_limit)
        return unusable("it is longer than " + std::to_string(length_limit) + " characters");
    const auto text = tolerated(reference);
    const auto parsed = urls::parse_uri_reference(text);
    const auto from = to_string(base);
    const auto start = urls::parse_uri(from);
    urls::url whole;
    if (!parsed || !has_whole_authority(*parsed) || !start || !urls::resolve(*start, *parsed, whole))
        return unusable("it is malformed");
    if (whole.size() > length_limit)
        return unusable("it is longer than " + std::to_string(length_limit) + " characters");
    auto url = taken_apart(whole);
    if (url) drop_parents_of_root(url->target);
    return url;
}

std::string to_string(const Url& url) {
    return url.scheme + "://" + host_and_port(url, url.port != usual_port(url.scheme)) + url.target;
}

std::string without_query(const Url& url) {
    auto text = to_string(url);
    if (const auto query = url.target.find('?'); query != std::string::npos)
        text.resize(text.size() - (url.target.size() - query));
    return text;
}

std::string authority_of(const Url& url) { return host_and_port(url, true); }

bool same_origin(const Url& a, const Url& b) { return a.scheme == b.scheme && a.host == b.host && a.port == b.port; }

}  // namespace ghost::net
