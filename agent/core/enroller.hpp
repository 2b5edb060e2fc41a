// Asks Ghost Core to take this machine in, and for a new certificate, and keeps what it gave.
#pragma once

#include "agent/core/credential_files.hpp"
#include "base/error.hpp"
#include "heartbeat/identity.hpp"
#include "net/client.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <string>

namespace ghost::agent {

struct Joining {
    std::string token;
    std::string name;               // of this machine, for people
    boost::json::object resources;  // as GET /v1/resources answers
    boost::json::object addresses;  // {"local": [...], "tailscale_ip"?}
    std::string base_path = {};     // of Core's address: "/core", without a slash at its end
};

// With the key that is there, or a new one. The identity is kept last: until it tells of the enrolment there was none,
// and asking again with the same token is answered alike. Returns it as it is kept.
// Errors: those of net::Client, of heartbeat::refusal() and read_enrolled(), and of files.
[[nodiscard]] boost::asio::awaitable<base::Result<heartbeat::Identity>> enrol(net::Client& core, CredentialFiles& files,
                                                                              heartbeat::Identity identity,
                                                                              Joining joining);

// `core` shows the certificate that is to be replaced, which may have expired. Returns what is kept from now on.
// Errors: the same.
[[nodiscard]] boost::asio::awaitable<base::Result<Credentials>> renew(net::Client& core, CredentialFiles& files,
                                                                      std::string agent_id, std::string base_path);

}  // namespace ghost::agent
