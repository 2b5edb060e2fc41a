#include "heartbeat/enrolment.hpp"

#include "heartbeat/json_fields.hpp"
#include "net/digest.hpp"
#include "net/text.hpp"
#include "net/url.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>

namespace ghost::heartbeat {
namespace {

namespace json = boost::json;
using base::Errc;
using base::Result;

constexpr std::size_t pem_limit = 64 * 1024;
constexpr std::size_t url_limit = 1024;
constexpr std::size_t url_count_limit = 16;

std::unexpected<base::Error> wrong(std::string_view why) {
    return base::fail(Errc::source_unavailable, fmt::format("Ghost Core's answer is of no use: {}", why));
}

Result<json::object> read_object(std::string_view body) {
    boost::system::error_code error;
    auto parsed = json::parse({body.data(), body.size()}, error);
    if (error || !parsed.is_object()) return wrong("it is no JSON object");
    return std::move(parsed.get_object());
}

Result<std::string> read_pem(const json::object& document, std::string_view key) {
    const auto* value = document.if_contains(key);
    if (value == nullptr || !value->is_string() || value->get_string().empty())
        return wrong(fmt::format("{} is no text", key));
    if (value->get_string().size() > pem_limit) return wrong(fmt::format("{} is too long", key));
    std::string pem{value->get_string()};
    if (const auto read = net::read_certificate(pem); !read)
        return wrong(fmt::format("{}: {}", key, read.error().detail));
    return pem;
}

// A certificate for our key, in the agent's name.
Result<std::string> read_own(const json::object& document, std::string_view key_pem, std::string_view agent_id) {
    auto pem = read_pem(document, "certificate");
    if (!pem) return pem;
    if (const auto pair = net::check_pair(*pem, key_pem); !pair) return wrong(pair.error().detail);
    if (net::read_certificate(*pem)->common_name != agent_id)
        return wrong(fmt::format("the certificate is not in the name of {}", agent_id));
    return pem;
}

std::string member(const json::object& document, std::string_view key) {
    const auto* value = document.if_contains(key);
    return value != nullptr && value->is_string() ? one_line(value->get_string()) : std::string{};
}

std::string sentence(unsigned status, const std::string& code, const std::string& detail) {
    if (code == "token_unknown")
        return "Ghost Core doesn't know this enrolment token: it may have expired, or be another Core's; ask for a new "
               "one";
    if (code == "token_used")
        return "another installation has enrolled with this token: each needs one of its own; ask for a new one";
    const auto& what = detail.empty() ? code : detail;
    return fmt::format("Ghost Core answered {}{}{}", status, what.empty() ? "" : ": ", what);
}

Errc code_of(unsigned status) {
    switch (status) {
        case 401:
        case 403: return Errc::forbidden;
        case 404: return Errc::not_found;
        case 400:
        case 413:
        case 422:
        case 426: return Errc::validation_failed;
        default: return Errc::source_unavailable;
    }
}

}  // namespace

Result<Enrolled> read_enrolled(std::string_view body, std::string_view key_pem) {
    const auto document = read_object(body);
    if (!document) return base::fail(document.error());
    const auto* id = document->if_contains("agent_id");
    if (id == nullptr || !id->is_string() || !is_agent_id(id->get_string())) return wrong("agent_id is no id");
    const std::string agent_id{id->get_string()};
    auto certificate = read_own(*document, key_pem, agent_id);
    if (!certificate) return base::fail(certificate.error());
    auto ca = read_pem(*document, "ca");
    if (!ca) return base::fail(ca.error());
    const auto* list = document->if_contains("core_urls");
    auto urls = read_core_urls(list == nullptr ? json::value{} : *list);
    if (!urls) return base::fail(urls.error());
    return Enrolled{agent_id, *std::move(certificate), *std::move(ca), *std::move(urls)};
}

Result<Renewed> read_renewed(std::string_view body, std::string_view key_pem, std::string_view agent_id) {
    const auto document = read_object(body);
    if (!document) return base::fail(document.error());
    auto certificate = read_own(*document, key_pem, agent_id);
    if (!certificate) return base::fail(certificate.error());
    Renewed renewed{*std::move(certificate), {}};
    if (!document->contains("ca")) return renewed;
    auto ca = read_pem(*document, "ca");
    if (!ca) return base::fail(ca.error());
    renewed.ca = *std::move(ca);
    return renewed;
}

base::Error refusal(unsigned status, std::string_view body) {
    const auto document = read_object(body).value_or(json::object{});
    const auto code = member(document, "code");
    base::Error error{code_of(status), sentence(status, code, member(document, "detail"))};
    error.facts["status"] = status;
    if (!code.empty()) error.facts["code"] = code;
    return error;
}

bool is_agent_id(std::string_view text) noexcept {
    return net::is_request_id(text);  // the same characters, as many
}

Result<std::vector<std::string>> read_core_urls(const json::value& list) {
    if (!list.is_array()) return wrong("core_urls is no list");
    if (list.get_array().size() > url_count_limit)
        return wrong(fmt::format("core_urls has more than {}", url_count_limit));
    std::vector<std::string> urls;
    for (const auto& each : list.get_array()) {
        const auto url =
            each.is_string() ? net::parse_url(each.get_string()) : base::fail(Errc::validation_failed, "no text");
        if (!url || url->scheme != "https" || each.get_string().size() > url_limit)
            return wrong("core_urls has something else than https:// addresses");
        urls.emplace_back(each.get_string());
    }
    return urls;
}

std::string token_digest(std::string_view token) { return net::sha256_hex(token); }

base::Wall renewal_time(const net::CertificateFacts& certificate, base::Random& random) {
    const auto life = certificate.not_after - certificate.not_before;
    const auto share = 0.5 * (0.95 + 0.1 * random.uniform());
    return certificate.not_before + std::chrono::duration_cast<base::Wall::duration>(life * share);
}

}  // namespace ghost::heartbeat
