// Following an operation to its end with long polls, and a progress bar.
#pragma once

#include "agent/cli/agent_client.hpp"
#include "agent/cli/console.hpp"
#include "base/clock.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstdint>
#include <string>

namespace ghost::cli {

// The operation in a terminal state, or why the wait ended before: interrupted (the coroutine was cancelled), the
// limit was reached, or the agent is gone. In these cases the operation goes on, and the failure says how to go on
// waiting for it and how to cancel it.
//
// On a terminal it asks about once a second, so that the bar moves; otherwise in polls of up to 25 s. An agent that
// is away for a moment (restarting, overloaded) is asked again a few times.
//
// The awaiting coroutine must have called throw_if_cancelled(false).
class Follower {
public:
    Follower(AgentClient& agent, base::Clock& clock, Console& console)
        : agent_(agent), clock_(clock), console_(console) {}

    [[nodiscard]] boost::asio::awaitable<Outcome<boost::json::object>> follow(boost::json::object operation,
                                                                              std::string subject,
                                                                              std::chrono::seconds limit);

    static constexpr std::chrono::seconds longest_poll{25};
    static constexpr unsigned most_faults = 10;  // in a row, a second apart

private:
    void draw(const std::string& subject, const boost::json::object& operation, std::chrono::seconds elapsed);
    void erase();

    AgentClient& agent_;
    base::Clock& clock_;
    Console& console_;
    bool drawn_ = false;
};

enum class WaitEnd : std::uint8_t { interrupted, limit_reached, agent_gone };
// The failure of a wait that ended before its operation. `why`: of agent_gone, what the last request failed with.
[[nodiscard]] Failure wait_ended(WaitEnd end, const boost::json::object& operation, std::string_view subject,
                                 std::chrono::seconds limit, const Failure& why = {});

}  // namespace ghost::cli
