// A drained node takes no new VMs: nothing is created and nothing adopted, until
// that is ended. What it has can still be started, stopped, changed and deleted.
#pragma once

#include "agent/operations/operation_service.hpp"
#include "base/clock.hpp"
#include "base/context.hpp"
#include "base/error.hpp"
#include "base/turns.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/value.hpp>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

namespace ghost::agent {

// Loop thread only. The state is in force from an operation's acceptance on, with which it is committed; it survives
// restarts.
class Drain {
public:
    using Begun = boost::asio::awaitable<base::Result<OperationService::Ptr>>;

    Drain(const boost::asio::any_io_executor& executor, OperationService& operations, const base::Clock& clock)
        : operations_(operations), clock_(clock), turns_(executor) {}

    // Of the database. What can't be read counts as drained.
    void restore(const std::map<std::string, std::string>& facts);
    // Errors of both: those of OperationService::begin(), but operation_in_progress.
    //
    // Of a node that is drained already a `reason` replaces the one that was given, and none changes nothing.
    [[nodiscard]] Begun begin(base::Context context, std::string reason);
    [[nodiscard]] Begun end(base::Context context);
    // Goes on after a crash.
    void recover(const Operation& operation);

    [[nodiscard]] bool active() const noexcept { return state_.has_value(); }
    // Why new VMs aren't taken, and how to end that: draining, with the fact "drain". No error: they are.
    [[nodiscard]] base::Result<void> refusal() const;
    // {"since", "reason", "by"}, or null.
    [[nodiscard]] boost::json::value to_json() const;

    // Called when it began, ended or changed.
    std::function<void()> on_change;

    static constexpr std::size_t max_reason = 200;  // bytes

private:
    struct State {
        base::Wall since;
        std::string reason;  // empty: none was given
        std::string by;      // who gave it
    };
    Begun change(base::Context context, std::string kind, std::optional<State> next, std::string would);
    [[nodiscard]] static boost::json::value to_json(const std::optional<State>& state);
    [[nodiscard]] static std::string to_fact(const std::optional<State>& state);

    OperationService& operations_;
    const base::Clock& clock_;
    std::optional<State> state_;
    base::Turns turns_;  // of changes
};

// Of the body that asks for a drain, an object: its "reason", or empty. Errors: validation_failed.
[[nodiscard]] base::Result<std::string> drain_reason_of(const boost::json::value& body);

}  // namespace ghost::agent
