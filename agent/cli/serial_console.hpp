// The serial console of a VM on this terminal, or on pipes.
#pragma once

#include "agent/cli/agent_client.hpp"
#include "agent/cli/agent_streams.hpp"
#include "agent/cli/console.hpp"
#include "agent/cli/invocation.hpp"
#include "agent/cli/stdio.hpp"
#include "base/clock.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <string>

namespace ghost::cli {

inline constexpr char leave_key = '\x1d';  // Ctrl-]

// What is told besides the bytes, on standard error.
class ConsoleNotices {
public:
    ConsoleNotices(Console& console, std::string vm, bool read_only, bool raw)
        : console_(console), vm_(std::move(vm)), read_only_(read_only), raw_(raw) {}

    void greet();
    void take(const boost::json::object& event);
    // On a line of its own, whatever the guest has written so far.
    void tell(std::string_view text);

private:
    Console& console_;
    std::string vm_;
    bool read_only_;
    bool raw_;
    bool knows_writer_ = false;
};

// All references must outlive it. The awaiting coroutine must have called throw_if_cancelled(false).
[[nodiscard]] boost::asio::awaitable<Outcome<std::string>> use_console(OpenConsole action, AgentStreams& streams,
                                                                       Stdio& stdio, base::Clock& clock,
                                                                       Console& console);

}  // namespace ghost::cli
