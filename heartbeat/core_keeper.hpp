// What the link must not forget, in the hands of whoever owns files and database.
#pragma once

#include "base/error.hpp"
#include "heartbeat/core_link.hpp"
#include "heartbeat/enrolment.hpp"
#include "heartbeat/inbox.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace ghost::heartbeat {

// What is done is durable when it returns, and done whole or not at all, also when the caller is cancelled.
class CoreKeeper {
public:
    using Done = boost::asio::awaitable<base::Result<void>>;
    virtual ~CoreKeeper() = default;

    // Also that the token with this hash was used.
    [[nodiscard]] virtual Done keep_enrolment(Enrolled answer, std::string used_token) = 0;
    [[nodiscard]] virtual Done keep_certificate(Renewed answer) = 0;
    [[nodiscard]] virtual Done keep_urls(std::vector<std::string> core_urls) = 0;
    [[nodiscard]] virtual Done keep_commands(std::vector<Command> commands) = 0;
    // Facts up to `rev` are Core's now.
    [[nodiscard]] virtual Done forget_facts(std::uint64_t rev) = 0;
};

}  // namespace ghost::heartbeat
