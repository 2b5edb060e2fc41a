#include "net/response_text.hpp"

#include "net/text.hpp"

#include <boost/beast/http/status.hpp>
#include <fmt/format.h>

#include <time.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <iterator>

namespace ghost::net {
namespace {

constexpr std::array<std::string_view, 8> own_headers{"Content-Length", "Content-Type", "Connection",
                                                      "Date",           "Server",       "Transfer-Encoding",
                                                      "X-Request-Id",   "traceparent"};

void append_header(std::string& out, std::string_view name, std::string_view value) {
    out.append(name).append(": ");
    std::ranges::transform(value, std::back_inserter(out), [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return byte < 0x20 || byte == 0x7F ? ' ' : c;
    });
    out.append("\r\n");
}

}  // namespace

bool may_have_body(unsigned status) noexcept { return status != 204 && status != 304; }

std::string_view reason_of(unsigned status) noexcept {
    const auto reason = boost::beast::http::obsolete_reason(boost::beast::http::int_to_status(status));
    return {reason.data(), reason.size()};
}

std::string http_date(base::Wall time) {
    constexpr std::array days{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    constexpr std::array months{"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const auto seconds = std::chrono::system_clock::to_time_t(time);
    tm utc{};
    ::gmtime_r(&seconds, &utc);
    return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT", days.at(static_cast<std::size_t>(utc.tm_wday)),
                       utc.tm_mday, months.at(static_cast<std::size_t>(utc.tm_mon)), utc.tm_year + 1900, utc.tm_hour,
                       utc.tm_min, utc.tm_sec);
}

std::string to_wire(const Response& response, const Delivery& delivery) {
    assert(response.status >= 200 && response.status <= 599);
    const bool bodiless = !may_have_body(response.status);
    const bool streams = static_cast<bool>(response.stream);
    std::string out;
    out.reserve(512 + (delivery.head_only || streams ? 0 : response.body.size()));
    fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\n", response.status, reason_of(response.status));
    append_header(out, "Date", http_date(delivery.date));
    append_header(out, "Server", "ghost-agent");
    if (!delivery.keep_alive)
        append_header(out, "Connection", "close");
    else if (delivery.http_1_0)
        append_header(out, "Connection", "keep-alive");
    if (!bodiless) {
        if ((streams || !response.body.empty()) && !response.content_type.empty())
            append_header(out, "Content-Type", response.content_type);
        if (!streams)
            append_header(out, "Content-Length", std::to_string(response.body.size()));
        else if (!delivery.http_1_0)
            append_header(out, "Transfer-Encoding", "chunked");
    }
    if (!delivery.request_id.empty()) append_header(out, "X-Request-Id", delivery.request_id);
    if (!delivery.traceparent.empty()) append_header(out, "traceparent", delivery.traceparent);
    for (const auto& [name, value] : response.headers) {
        const bool ours = std::ranges::any_of(own_headers, [&](std::string_view own) { return same_token(own, name); });
        if (!ours && is_token(name)) append_header(out, name, value);
    }
    out.append("\r\n");
    if (!bodiless && !delivery.head_only && !streams) out.append(response.body);
    return out;
}

}  // namespace ghost::net
