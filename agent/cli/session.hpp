// Carries an Invocation out.
#pragma once

#include "agent/cli/agent_client.hpp"
#include "agent/cli/agent_streams.hpp"
#include "agent/cli/console.hpp"
#include "agent/cli/follow.hpp"
#include "agent/cli/invocation.hpp"
#include "agent/cli/stdio.hpp"
#include "agent/cli/viewer.hpp"
#include "base/clock.hpp"
#include "base/random.hpp"
#include "net/client.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <optional>
#include <string>
#include <vector>

namespace ghost::cli {

// Asks before what can't be taken back; to be called before a Session runs, since it waits for a person. The exit code
// to end with, or nullopt to go on. With nobody to ask it refuses: a script says --yes.
[[nodiscard]] std::optional<ExitCode> confirm(const Invocation& invocation, Console& console);

// What ways into a VM are made of, besides requests. All must outlive the session.
struct Outside {
    AgentStreams& streams;
    Stdio& stdio;
    Desktop& desktop;
};

class Doorway;

class Session {
public:
    // All must outlive it.
    Session(const Invocation& invocation, net::Client& client, base::Clock& clock, base::Random& random,
            Console& console, Outside outside);

    // Never throws for a failure: it says what went wrong on the console. Cancelling the coroutine is a person's
    // Ctrl-C.
    [[nodiscard]] boost::asio::awaitable<ExitCode> run();

    // The program that this process is to become now that the session is over; empty: none.
    [[nodiscard]] const std::vector<std::string>& successor() const noexcept { return successor_; }

    // Of a change whose connection broke before it was answered, a second apart.
    static constexpr unsigned most_repeats = 3;

private:
    using Done = Outcome<std::string>;  // what goes to standard output

    [[nodiscard]] boost::asio::awaitable<Done> perform(ShowStatus);
    [[nodiscard]] boost::asio::awaitable<Done> perform(ShowVersion);
    [[nodiscard]] boost::asio::awaitable<Done> perform(ShowOne action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(ShowList action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(Change action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(WaitForOperation action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(FollowEvents action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(WatchVms action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(OpenConsole action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(ForwardPorts action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(ForwardStdio action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(StartSsh action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(ShowHostKeys action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(CopyFile action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(ExecCommand action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(OpenScreen action);
    [[nodiscard]] boost::asio::awaitable<Done> perform(TakeScreenshot action);
    [[nodiscard]] boost::asio::awaitable<Done> show_screen(Doorway& doorway,
                                                           std::optional<std::vector<std::string>> viewer,
                                                           std::string socket, VmRef vm);

    [[nodiscard]] boost::asio::awaitable<Outcome<boost::json::object>> ask_for(Change change);
    // Its operation, which went well.
    [[nodiscard]] boost::asio::awaitable<Outcome<boost::json::object>> carry_out(Change change);
    [[nodiscard]] Done preview(const Change& change, const boost::json::object& answer) const;
    [[nodiscard]] boost::asio::awaitable<Done> finish(Change change, boost::json::object operation);
    [[nodiscard]] std::string accepted(const boost::json::object& operation) const;
    [[nodiscard]] std::string document(const boost::json::object& value) const;

    const Invocation& invocation_;
    base::Clock& clock_;
    base::Random& random_;
    Console& console_;
    Outside outside_;
    AgentClient agent_;
    Follower follower_;
    std::vector<std::string> successor_;
};

}  // namespace ghost::cli
