// What handlers read from a request: query, body, preconditions. Unknown query
// parameters are faults, so that one this version doesn't know changes nothing.
#pragma once

#include "base/error.hpp"
#include "net/http.hpp"

#include <boost/json/value.hpp>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent::api {

class QueryReader {
public:
    explicit QueryReader(const net::Request& request) : query_(request.query) {}

    std::optional<std::string> text(std::string_view name);
    std::vector<std::string> texts(std::string_view name);  // a parameter that may come several times
    std::optional<std::uint64_t> integer(std::string_view name, std::uint64_t min, std::uint64_t max);
    std::optional<bool> boolean(std::string_view name);
    std::optional<std::string> one_of(std::string_view name, std::initializer_list<std::string_view> allowed);
    void fault(std::string_view name, std::string detail);
    // Faults of all that was read, and of parameters nobody asked for.
    [[nodiscard]] base::Result<void> finish();

private:
    const net::Query& query_;
    std::vector<std::string> asked_;
    std::vector<base::Fault> faults_;
};

// `?wait=` seconds, at most 300; nothing else is known.
[[nodiscard]] base::Result<std::chrono::seconds> read_wait(const net::Request& request);
// Of a change: `?wait=`, and `?dry_run=`, which goes into the request's context.
[[nodiscard]] base::Result<std::chrono::seconds> read_change(net::Request& request);
// Decimal digits and nothing else.
[[nodiscard]] std::optional<std::uint64_t> to_number(std::string_view text);
// No parameter at all.
[[nodiscard]] base::Result<void> no_query(const net::Request& request);

// The body as JSON. Errors: unsupported_media_type, invalid_json. `optional`: an empty body is an empty object.
[[nodiscard]] base::Result<boost::json::value> read_body(const net::Request& request, bool optional = false);

// For changes without parameters: no body, or an empty object; anything else would be ignored and is a fault.
[[nodiscard]] base::Result<void> empty_body(const net::Request& request);

// The generations of If-Match, any of which will do; none for "*" or without the header. Only ETags that we never made:
// precondition_failed.
[[nodiscard]] base::Result<std::vector<std::uint64_t>> read_if_match(const net::Request& request);
// If-None-Match names this very ETag.
[[nodiscard]] bool not_modified(const net::Request& request, std::string_view etag);

// Where a page starts and how long it is.
struct Page {
    std::size_t limit = 100;
    std::string after;  // id of the last item of the page before
};
[[nodiscard]] Page read_page(QueryReader& query);
[[nodiscard]] std::string page_token(std::string_view last_id);

}  // namespace ghost::agent::api
