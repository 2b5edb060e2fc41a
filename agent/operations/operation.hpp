// An operation: one change somebody asked for, from its acceptance to its end.
#pragma once

#include "base/clock.hpp"
#include "base/context.hpp"
#include "base/error.hpp"

#include <boost/json/object.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

// Runs a program in a guest. One that is cut off may have done its work all the same.
inline constexpr std::string_view guest_exec_kind = "vm.exec";

enum class OperationState : std::uint8_t { pending, running, succeeded, failed, cancelled };
[[nodiscard]] std::string_view name_of(OperationState state) noexcept;
[[nodiscard]] constexpr bool is_terminal(OperationState state) noexcept {
    return state == OperationState::succeeded || state == OperationState::failed || state == OperationState::cancelled;
}

struct Progress {
    std::string phase;        // "image", "disk", "start", ...
    std::uint64_t done = 0;   // of `total`, in `unit`
    std::uint64_t total = 0;  // 0: not known
    std::string unit;         // "steps" | "bytes"
    double rate = 0;          // units a second, 0: not known
};

struct OperationTarget {
    std::string type;  // "vm" | "image" | "images" | "orphans" | "agent"
    std::string id;
    std::string name;
};

// What a dry run found: the request would be accepted.
struct Preview {
    std::vector<std::string> would;
    boost::json::object needs;
};

// How far a step of an operation got, as the journal tells: its intent before it begins, its end with the next one's.
struct StepRecord {
    std::string name;
    bool done = false;
};

// What the work answers with, where that is more than a resource to look at.
struct OperationAnswer {
    boost::json::object facts;  // small: shown wherever the operation is
    boost::json::object texts;  // large: shown with the operation alone, and not for as long as that is kept
    bool expired = false;       // each of the texts is null

    // How much of memory and of the database the texts take, about.
    [[nodiscard]] std::size_t size() const;
    void expire();
};

struct Operation {
    std::string id;
    std::string kind;  // "vm.create", "image.add", ...
    OperationTarget target;
    OperationState state = OperationState::pending;
    bool stalled = false;
    bool cancellable = false;
    bool exclusive = true;  // false: passed beside another of its target (a forced stop); not shown
    Progress progress;
    std::optional<base::Error> error;            // why it failed; of one that waits to try again: why its last try did
    std::string result_href;                     // set when it succeeded and there is something to look at
    std::optional<OperationAnswer> answer = {};  // when it succeeded and has one: its result, instead of the href
    std::string request_id;
    std::string traceparent;  // of the request; empty on operations of versions that didn't keep it
    std::string requested_by;
    base::Wall created_at;
    std::optional<base::Wall> started_at;
    std::optional<base::Wall> finished_at;
    std::vector<StepRecord> steps;       // begun so far; not shown
    bool cancel_requested = false;       // not shown
    std::optional<base::Error> undoing;  // what it failed with, while what it did is taken back; not shown
    std::optional<Preview> preview;      // of a dry run: this operation never was
    boost::json::object plan;            // what recovery after a crash needs to resume or undo; not shown
};

// As it is journalled, and back. A damaged document is io_error.
[[nodiscard]] std::string to_document(const Operation& operation);
[[nodiscard]] base::Result<Operation> operation_from_document(std::string_view document);

}  // namespace ghost::agent
