// Responses as they go over the wire.
#pragma once

#include "base/clock.hpp"
#include "net/http.hpp"

#include <string>
#include <string_view>

namespace ghost::net {

// What the connection adds to a handler's response.
struct Delivery {
    bool head_only = false;  // the answer to HEAD: every header of the body, no body
    bool keep_alive = true;  // not with HTTP/1.0 and a streamed body, which ends with the connection
    bool http_1_0 = false;
    std::string_view request_id = {};
    std::string_view traceparent = {};
    base::Wall date = {};
};

// Status line, headers and body; of a streamed one the head alone. Content-Length, Transfer-Encoding, Connection, Date
// and Server are ours, whatever the handler set; control characters in its header values become spaces, so that no
// value can add a header or a response.
[[nodiscard]] std::string to_wire(const Response& response, const Delivery& delivery);
[[nodiscard]] bool may_have_body(unsigned status) noexcept;
[[nodiscard]] std::string_view reason_of(unsigned status) noexcept;
// RFC 9110's IMF-fixdate: "Sun, 06 Nov 1994 08:49:37 GMT".
[[nodiscard]] std::string http_date(base::Wall time);

}  // namespace ghost::net
