#include "heartbeat/identity.hpp"

#include "base/ids.hpp"

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include <limits>
#include <optional>

namespace ghost::heartbeat {
namespace {

std::unexpected<base::Error> damaged(std::string_view why) {
    return base::fail(base::Errc::io_error, "identity.json is damaged: " + std::string{why} +
                                                "; restore it from a backup, or remove it to join as a new node");
}

std::optional<std::string> string_member(const boost::json::object& document, std::string_view key) {
    const auto* value = document.if_contains(key);
    if (value == nullptr || !value->is_string()) return std::nullopt;
    return std::string{value->get_string()};
}

}  // namespace

base::Result<Identity> next_identity(std::optional<std::string_view> text, const base::Clock& clock,
                                     base::Random& random) {
    if (!text) return Identity{base::make_uuid(clock, random), {}, 1};

    boost::system::error_code ec;
    const auto parsed = boost::json::parse({text->data(), text->size()}, ec);
    if (ec || !parsed.is_object()) return damaged("it is no JSON object");
    const auto& document = parsed.get_object();

    const auto install_id = string_member(document, "install_id");
    if (!install_id || !base::is_uuid(*install_id)) return damaged("install_id is no UUID");
    const auto agent_id = string_member(document, "agent_id");
    if (!agent_id) return damaged("agent_id is no string");
    const auto* epoch = document.if_contains("epoch");
    if (epoch == nullptr || !epoch->is_number()) return damaged("epoch is no number");
    const auto last = epoch->to_number<std::uint64_t>(ec);
    if (ec || last == std::numeric_limits<std::uint64_t>::max()) return damaged("epoch is out of range");
    Identity identity{*install_id, *agent_id, last + 1};
    // Older agents wrote neither.
    if (document.contains("used_token")) {
        auto used = string_member(document, "used_token");
        if (!used) return damaged("used_token is no string");
        identity.used_token = *std::move(used);
    }
    if (const auto* urls = document.if_contains("core_urls")) {
        if (!urls->is_array()) return damaged("core_urls is no list");
        for (const auto& url : urls->get_array()) {
            if (!url.is_string()) return damaged("core_urls has something else than strings");
            identity.core_urls.emplace_back(url.get_string());
        }
    }
    return identity;
}

std::string to_text(const Identity& identity) {
    boost::json::object document{
        {"install_id", identity.install_id}, {"agent_id", identity.agent_id}, {"epoch", identity.epoch}};
    if (!identity.used_token.empty()) document["used_token"] = identity.used_token;
    if (!identity.core_urls.empty())
        document["core_urls"] = boost::json::array(identity.core_urls.begin(), identity.core_urls.end());
    return boost::json::serialize(document) + "\n";
}

}  // namespace ghost::heartbeat
