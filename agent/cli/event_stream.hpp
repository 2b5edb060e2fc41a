// Following the agent's events, also when the connection doesn't last.
#pragma once

#include "agent/cli/agent_client.hpp"
#include "agent/cli/console.hpp"
#include "agent/cli/sse_parser.hpp"
#include "base/clock.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::cli {

// Who is told what happens. Must not throw.
class EventReader {
public:
    virtual ~EventReader() = default;
    virtual void take(const boost::json::object& event) = 0;
    // What came at once has been taken, be it a sign of life alone. False: no more is wanted.
    [[nodiscard]] virtual bool settle() = 0;
};

// How long to wait before the next of several tries: 1 s, then twice as long each time, at most 10 s.
class Backoff {
public:
    [[nodiscard]] std::chrono::seconds next();
    void reset() { span_ = std::chrono::seconds{0}; }

private:
    std::chrono::seconds span_{0};
};

// A stream that broke is taken up again after the last event that came; the console is told once, and when it is back.
class EventStream {
public:
    // All must outlive it.
    EventStream(AgentClient& agent, base::Clock& clock, Console& console)
        : agent_(agent), clock_(clock), console_(console) {}

    // Where to begin: after this event; empty: with what happens from now on.
    void resume_after(std::string event_id) { place_ = std::move(event_id); }

    // `stopped`: by the reader, or because the coroutine was cancelled. `expired`: what followed the place isn't kept
    // any more; the place is then the newest event, as far as the agent says which that is.
    enum class End : std::uint8_t { stopped, expired };
    // Fails when the agent can't be reached at first, or says no.
    //
    // The awaiting coroutine must have called throw_if_cancelled(false).
    [[nodiscard]] boost::asio::awaitable<Outcome<End>> follow(EventReader& reader);

private:
    struct Connection {
        EventReader& reader;
        SseParser parser = {};
        bool stopped = false;
    };

    [[nodiscard]] boost::asio::awaitable<std::optional<Failure>> find_place();
    [[nodiscard]] bool take(Connection& connection, std::string_view piece);
    [[nodiscard]] Failure why_ended(const Connection& connection, Outcome<net::ClientResponse> answer) const;
    void tell_of_outage(const Failure& why);

    AgentClient& agent_;
    base::Clock& clock_;
    Console& console_;
    std::string place_;
    Backoff backoff_;
    bool was_connected_ = false;
    bool outage_told_ = false;
};

}  // namespace ghost::cli
