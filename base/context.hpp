// Who asks, and under which request: every service call carries it.
#pragma once

#include <cstdint>
#include <string>

namespace ghost::base {

struct Principal {
    enum class Kind : std::uint8_t {
        anonymous,    // no proof of identity
        socket,       // peer credentials of the Unix socket
        certificate,  // client certificate
        core,         // Ghost Core's commands
        agent,        // the agent itself: reconciliation, start-up
    };
    Kind kind = Kind::anonymous;
    std::string name;    // "uid:0", the certificate's subject, ...
    bool admin = false;  // may do everything; roles come later

    // "socket:uid:0", as it is logged and kept on operations.
    [[nodiscard]] std::string text() const;
    [[nodiscard]] static Principal of_agent() { return {Kind::agent, "ghost-agent", true}; }
};

// A client's name for a change, so that asking again does it once.
struct IdempotencyKey {
    std::string key;          // with the identity it belongs to; empty: none was given
    std::string fingerprint;  // of the request
};

struct Context {
    std::string request_id;   // X-Request-Id, made when the client sent none
    std::string traceparent;  // W3C trace context, likewise
    Principal who;
    IdempotencyKey idempotency = {};
    bool dry_run = false;  // tell what would happen; nothing may
};

}  // namespace ghost::base
