// Joining Ghost Core and keeping a certificate that is valid: what an answer must hold, and when to ask.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/random.hpp"
#include "net/x509.hpp"

#include <boost/json/value.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::heartbeat {

struct Enrolled {
    std::string agent_id;
    std::string certificate;  // chain, PEM, for our key and in the agent's name
    std::string ca;           // PEM
    std::vector<std::string> core_urls;
};
struct Renewed {
    std::string certificate;
    std::string ca;  // empty: as before
};
// The body of a 201, and of a 200. `key_pem` is our key. Errors: source_unavailable with a sentence: what Core must not
// have answered.
[[nodiscard]] base::Result<Enrolled> read_enrolled(std::string_view body, std::string_view key_pem);
[[nodiscard]] base::Result<Renewed> read_renewed(std::string_view body, std::string_view key_pem,
                                                 std::string_view agent_id);

// What any other answer means: the fact `status`, and with a problem document its `code`. Errors: forbidden (401, 403:
// the token or the certificate isn't taken), not_found (404), validation_failed (400, 413, 422, 426: trying again is of
// no use), source_unavailable (all others).
[[nodiscard]] base::Error refusal(unsigned status, std::string_view body);

// [A-Za-z0-9._-]{1,64}
[[nodiscard]] bool is_agent_id(std::string_view text) noexcept;
// At most 16, https only. Errors: source_unavailable.
[[nodiscard]] base::Result<std::vector<std::string>> read_core_urls(const boost::json::value& list);

// SHA-256 in hex: what is kept of a token that was used.
[[nodiscard]] std::string token_digest(std::string_view token);

// When a certificate is to be renewed: at half of its life, give or take 5 % of that, so that nodes which joined
// together don't come back together. In the past: at once.
[[nodiscard]] base::Wall renewal_time(const net::CertificateFacts& certificate, base::Random& random);

}  // namespace ghost::heartbeat
