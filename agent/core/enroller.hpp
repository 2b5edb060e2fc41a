// Asks Ghost Core to take this machine in, and keeps what it gave.
#pragma once

#include "agent/core/credential_files.hpp"
#include "base/error.hpp"
#include "heartbeat/core_link.hpp"
#include "heartbeat/identity.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <string>

namespace ghost::agent {

struct Joining {
    std::string url;  // Core's
    std::string token;
    std::string name;               // of this machine, for people
    boost::json::object resources;  // as GET /v1/resources answers
    boost::json::object addresses;  // {"local": [...], "tailscale_ip"?}
};

// Once, with the key that is there or a new one; `core` needs no credentials yet. Returns the identity as it is kept.
// Errors: those of CoreLink, of heartbeat::refusal() and read_enrolled(), and of files.
[[nodiscard]] boost::asio::awaitable<base::Result<heartbeat::Identity>> enrol(heartbeat::CoreLink& core,
                                                                              CredentialFiles& files,
                                                                              heartbeat::Identity identity,
                                                                              Joining joining);

}  // namespace ghost::agent
