// The way to Ghost Core, whatever it speaks: calls go out, answers come back.
// HTTPS is one; an older Core's gRPC may be another.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::heartbeat {

enum class Call : std::uint8_t { enroll, renew, session, heartbeat, facts, leave };
[[nodiscard]] std::string_view name_of(Call call) noexcept;

struct CoreCall {
    Call call = Call::heartbeat;
    std::string url;       // of Core
    std::string agent_id;  // empty: of an enrolment
    boost::json::object body = {};
    std::chrono::milliseconds timeout{10'000};  // of all of it
};

struct CoreAnswer {
    unsigned status = 0;
    std::optional<std::chrono::seconds> retry_after = {};
    std::string body = {};
};

// What the agent proves itself with, PEM.
struct Credentials {
    std::string key;
    std::string certificate;  // empty: not enrolled yet
    std::string ca;           // whom it takes for Core, beside what it is configured with
};

// One call at a time. Loop thread only.
class CoreLink {
public:
    virtual ~CoreLink() = default;
    // Every status is an answer. Errors: source_unavailable (facts: `certificate`, when Core's isn't right,
    // `certificate_refused`, when ours isn't taken), deadline_exceeded, body_too_large, cancelled.
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<CoreAnswer>> send(CoreCall call) = 0;
    // The next call connects anew, and resolves names again.
    virtual void drop() = 0;
    // From the next call on. `root`: PEM, the configuration's trust root, empty for the system's store until an
    // enrolment brings another; nullopt: the one before. Errors: io_error with a sentence; all stays as it is then.
    [[nodiscard]] virtual base::Result<void> use(Credentials credentials, std::optional<std::string> root) = 0;
};

}  // namespace ghost::heartbeat
