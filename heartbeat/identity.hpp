// Who this installation is: identity.json, kept outside the database so that
// losing that does not silence the node.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/random.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::heartbeat {

struct Identity {
    std::string install_id;   // a UUID made at the first start
    std::string agent_id;     // given by Ghost Core at enrolment; empty before
    std::uint64_t epoch = 0;  // grows at each start
    // Of the enrolment: SHA-256 (hex) of its token, and where Ghost Core said it is, in the order of its preference.
    std::string used_token = {};
    std::vector<std::string> core_urls = {};
};

// The identity for this start, from the last one's text (nullopt: the first start): the same, and the next epoch.
// Damaged text is io_error: the file is never silently replaced, since Core knows this node by it.
[[nodiscard]] base::Result<Identity> next_identity(std::optional<std::string_view> text, const base::Clock& clock,
                                                   base::Random& random);
[[nodiscard]] std::string to_text(const Identity& identity);

}  // namespace ghost::heartbeat
