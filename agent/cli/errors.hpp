// What went wrong, as a sentence with a hint and an exit status. No I/O.
#pragma once

#include "agent/cli/exit_code.hpp"
#include "agent/cli/invocation.hpp"
#include "base/error.hpp"
#include "net/client.hpp"

#include <boost/json/object.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::cli {

// Texts may hold what the agent sent; describe() makes them printable.
struct Failure {
    ExitCode code = ExitCode::failed;
    std::string sentence;                   // empty: all was said already
    std::vector<std::string> details = {};  // one line each
    std::string hint = {};
    std::string request_id = {};  // of the request or operation that failed
    bool passing = false;         // may be gone in a moment: worth asking again while following an operation
    bool unanswered = false;      // the request may have arrived all the same
    bool cut = false;             // the connection broke before the answer was here
};

// "ghostctl: <sentence>", indented details, "hint: ...", "request id: ...", each on a line of its own.
[[nodiscard]] std::string describe(const Failure& failure);

// An answer that says no. `body` is a problem document (RFC 9457) or anything else; `retry_after` is the header's
// value or empty; `target` is what was asked for.
[[nodiscard]] Failure failure_of_answer(unsigned status, std::string_view body, std::string_view retry_after,
                                        std::string_view target);
[[nodiscard]] Failure failure_of_answer(const net::ClientResponse& answer, std::string_view target);
// The `error` of an operation that failed.
[[nodiscard]] Failure failure_of_operation(const boost::json::object& operation);

// What a look at the socket's path shows after a connection failed.
enum class SocketState : std::uint8_t { missing, not_a_socket, forbidden, present };
// No answer came. `socket` matters for a SocketAddress only.
[[nodiscard]] Failure failure_of_connection(const base::Error& error, const Address& address, SocketState socket);

}  // namespace ghost::cli
