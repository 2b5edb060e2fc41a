// Steps with an undo each: all of them, or nothing.
#pragma once

#include "agent/operations/operation_service.hpp"
#include "base/error.hpp"
#include "base/log.hpp"

#include <boost/asio/awaitable.hpp>

#include <functional>
#include <string>
#include <vector>

namespace ghost::agent {

// `run` may fail half done; `undo` must cope with a step that did nothing, part or all, and may run twice.
struct Step {
    using Action = std::function<boost::asio::awaitable<base::Result<void>>()>;
    std::string name;  // the operation's phase while it runs
    Action run;
    Action undo;  // empty: nothing to take back
    // Whether all of it is done, for a step that a crash cut off; empty: can't be told, it is undone and run again.
    std::function<boost::asio::awaitable<bool>()> is_done = {};
    // Whether what the journal has as done is there: an undo that couldn't be journalled may have taken it back. Empty:
    // it is.
    std::function<boost::asio::awaitable<bool>()> is_there = {};
};

// Runs the steps in order, each journalled before it begins. Of an operation that a crash cut off, those that were done
// are passed over, and the one it was at is undone first unless it turns out to be done; one that was being undone is
// undone to the end. On a failure, or a cancel of the operation, undoes the failing step and all before it, and what
// was begun before a crash, in reverse, and returns the failure. A step that can't be undone after a few tries ends
// that: what the steps before it made stays, for the rest may stand on it, and all of it is named in the failure's
// facts ("left_behind"). When the agent stops meanwhile nothing is undone: Errc::interrupted, and the next start goes
// on.
[[nodiscard]] boost::asio::awaitable<base::Result<void>> run_steps(OperationControl& control, base::Clock& clock,
                                                                   base::Log& log, std::vector<Step> steps);

// Only the undos, in reverse, because of `why`; returns it.
[[nodiscard]] boost::asio::awaitable<base::Result<void>> undo_steps(OperationControl& control, base::Clock& clock,
                                                                    base::Log& log, std::vector<Step> steps,
                                                                    base::Error why);

}  // namespace ghost::agent
