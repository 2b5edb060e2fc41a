#include "agent/api/request.hpp"

#include "agent/json_reader.hpp"

#include <boost/json/object.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>

namespace ghost::agent::api {
namespace {

constexpr std::uint64_t max_wait_s = 300;
constexpr std::uint64_t default_limit = 100;
constexpr std::uint64_t max_limit = 1000;

std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
}

// Each element of a comma-separated header, without W/.
template <class Each>
void each_etag(std::string_view header, Each each) {
    while (!header.empty()) {
        const auto comma = header.find(',');
        auto tag = trim(header.substr(0, comma));
        if (tag.starts_with("W/")) tag.remove_prefix(2);
        each(tag);
        header = comma == std::string_view::npos ? std::string_view{} : header.substr(comma + 1);
    }
}

std::string hex(std::string_view text) {
    std::string out;
    for (const char c : text) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return out;
}

std::optional<std::string> unhex(std::string_view text) {
    if (text.size() % 2 != 0 || text.size() > 512) return std::nullopt;
    std::string out;
    for (std::size_t i = 0; i < text.size(); i += 2) {
        unsigned byte = 0;
        const auto* at = text.data() + i;
        const auto [end, ec] = std::from_chars(at, at + 2, byte, 16);
        if (ec != std::errc{} || end != at + 2) return std::nullopt;
        out += static_cast<char>(byte);
    }
    return out;
}

}  // namespace

std::optional<std::uint64_t> to_number(std::string_view text) {
    std::uint64_t value = 0;
    const auto [at, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    return ec == std::errc{} && at == text.data() + text.size() && !text.empty() ? std::optional{value} : std::nullopt;
}

void QueryReader::fault(std::string_view name, std::string detail) {
    faults_.push_back({"?" + std::string{name}, std::move(detail)});
}

std::vector<std::string> QueryReader::texts(std::string_view name) {
    asked_.emplace_back(name);
    std::vector<std::string> out;
    for (const auto& [key, value] : query_)
        if (key == name) out.push_back(value);
    return out;
}

std::optional<std::string> QueryReader::text(std::string_view name) {
    auto values = texts(name);
    if (values.size() > 1) fault(name, "is given more than once");
    return values.empty() ? std::nullopt : std::optional{std::move(values.front())};
}

std::optional<std::uint64_t> QueryReader::integer(std::string_view name, std::uint64_t min, std::uint64_t max) {
    const auto value = text(name);
    if (!value) return std::nullopt;
    const auto number = to_number(*value);
    if (number && *number >= min && *number <= max) return number;
    fault(name, fmt::format("expected a whole number from {} to {}, got \"{}\"", min, max, *value));
    return std::nullopt;
}

std::optional<bool> QueryReader::boolean(std::string_view name) {
    const auto value = one_of(name, {"true", "false"});
    return value ? std::optional{*value == "true"} : std::nullopt;
}

std::optional<std::string> QueryReader::one_of(std::string_view name, std::initializer_list<std::string_view> allowed) {
    auto value = text(name);
    if (!value || std::ranges::find(allowed, *value) != allowed.end()) return value;
    fault(name, fmt::format("expected one of {}, got \"{}\"", fmt::join(allowed, ", "), *value));
    return std::nullopt;
}

base::Result<void> QueryReader::finish() {
    for (const auto& [key, value] : query_)
        if (std::ranges::find(asked_, key) == asked_.end()) fault(key, "is not known here");
    if (faults_.empty()) return {};
    return base::fail(validation_error(std::move(faults_)));
}

base::Result<std::chrono::seconds> read_wait(const net::Request& request) {
    QueryReader query{request};
    const auto wait = query.integer("wait", 0, max_wait_s);
    if (const auto done = query.finish(); !done) return base::fail(done.error());
    return std::chrono::seconds{wait.value_or(0)};
}

base::Result<std::chrono::seconds> read_change(net::Request& request) {
    QueryReader query{request};
    const auto wait = query.integer("wait", 0, max_wait_s);
    const auto dry_run = query.boolean("dry_run");
    if (const auto done = query.finish(); !done) return base::fail(done.error());
    request.context.dry_run = dry_run.value_or(false);
    return std::chrono::seconds{wait.value_or(0)};
}

base::Result<void> no_query(const net::Request& request) { return QueryReader{request}.finish(); }

base::Result<boost::json::value> read_body(const net::Request& request, bool optional) {
    if (request.body.empty() && optional) return boost::json::object{};
    const auto type = request.headers.find("Content-Type");
    auto media = std::string{trim(type.value_or("").substr(0, type.value_or("").find(';')))};
    std::ranges::transform(media, media.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const bool patch = request.method == net::Method::patch;
    if (media.empty()) return base::fail(base::Errc::unsupported_media_type, "send Content-Type: application/json");
    if (media != "application/json" && !(patch && media == "application/merge-patch+json"))
        return base::fail(
            base::Errc::unsupported_media_type,
            fmt::format("expected application/json{}, got {}", patch ? " or application/merge-patch+json" : "", media));
    auto body = parse_json(request.body);
    if (!body) return body;
    // Which of the two was meant?
    if (const auto once = check_members(request.body); !once) return base::fail(once.error());
    return body;
}

base::Result<void> empty_body(const net::Request& request) {
    const auto body = read_body(request, true);
    if (!body) return base::fail(body.error());
    if (body->is_object() && body->get_object().empty()) return {};
    std::vector<base::Fault> faults{{"", "expected no body, or an empty object"}};
    return base::fail(validation_error(std::move(faults)));
}

base::Result<std::vector<std::uint64_t>> read_if_match(const net::Request& request) {
    std::vector<std::uint64_t> generations;
    const auto header = request.headers.find("If-Match");
    if (!header || trim(*header) == "*") return generations;
    each_etag(*header, [&generations](std::string_view tag) {
        if (!tag.starts_with("\"g")) return;
        const auto end = tag.find_first_of("-\"", 2);
        if (end == std::string_view::npos) return;
        if (const auto generation = to_number(tag.substr(2, end - 2))) generations.push_back(*generation);
    });
    if (generations.empty())
        return base::fail(base::Errc::precondition_failed, "If-Match names no ETag of this resource, like \"g3-r17\"");
    return generations;
}

bool not_modified(const net::Request& request, std::string_view etag) {
    const auto header = request.headers.find("If-None-Match");
    if (!header) return false;
    if (trim(*header) == "*") return true;
    bool same = false;
    each_etag(*header, [&](std::string_view tag) { same = same || tag == etag; });
    return same;
}

std::string page_token(std::string_view last_id) { return hex(last_id); }

Page read_page(QueryReader& query) {
    Page page;
    page.limit = static_cast<std::size_t>(query.integer("limit", 1, max_limit).value_or(default_limit));
    if (const auto token = query.text("page_token")) {
        if (auto after = unhex(*token))
            page.after = std::move(*after);
        else
            query.fault("page_token", "expected a next_page_token of this list");
    }
    return page;
}

}  // namespace ghost::agent::api
