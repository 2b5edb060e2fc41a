// Expected failures travel as Result<T>; exceptions are for start-up and bugs.
//
// The error contract of the whole program stands here: a function that can fail
// returns Result<T>; its Error names a stable code for programs, a sentence for
// people, and, where there is more to say, the faults (JSON Pointers into the
// caller's input) and facts (what was needed, what is free, what is allowed).
// Only agent/api turns an Error into an HTTP problem.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ghost::base {

enum class Errc : std::uint8_t {
    // the caller's input
    invalid_json,
    validation_failed,
    unsupported_media_type,
    body_too_large,
    upgrade_required,
    // who and whether
    unauthenticated,
    forbidden,
    protected_resource,
    // the state of things
    not_found,
    already_exists,
    state_conflict,
    operation_in_progress,
    precondition_failed,
    idempotency_mismatch,
    events_expired,
    insufficient_resources,
    insufficient_storage,
    // the agent and what it stands on
    overloaded,
    draining,
    hypervisor_unavailable,
    hypervisor_error,
    deadline_exceeded,
    cancelled,
    interrupted,
    // images
    invalid_image,
    checksum_mismatch,
    signature_invalid,
    unverified_image,
    source_unavailable,
    address_not_allowed,
    // ours
    io_error,
    internal,
};

// One fault in a caller's document. `pointer` is an RFC 6901 JSON Pointer.
struct Fault {
    std::string pointer;
    std::string detail;
};

struct Error {
    Errc code = Errc::internal;
    std::string detail;
    std::vector<Fault> faults = {};
    boost::json::object facts = {};
};

template <class T>
using Result = std::expected<T, Error>;

[[nodiscard]] inline std::unexpected<Error> fail(Errc code, std::string detail = {}) {
    return std::unexpected{Error{code, std::move(detail)}};
}
[[nodiscard]] inline std::unexpected<Error> fail(Error error) { return std::unexpected{std::move(error)}; }

// The error of errno value `number`, with `what` in front: "cannot open /x: No such file or directory".
// ENOSPC and EDQUOT become insufficient_storage, all others io_error.
[[nodiscard]] Error errno_error(int number, std::string_view what);

// Adds the facts of a full disk as every problem shows them: {"needed": {"disk_bytes": n}, "free": {"disk_bytes": n}};
// what isn't known is left out.
void add_disk_facts(Error& error, std::optional<std::uint64_t> needed, std::optional<std::uint64_t> free);

// The stable name of a code, as programs read it in a problem document.
[[nodiscard]] std::string_view name_of(Errc code) noexcept;
[[nodiscard]] std::optional<Errc> errc_from_name(std::string_view name) noexcept;

// An error as it is journalled with an operation, and back. Unknown codes read as `internal`.
[[nodiscard]] boost::json::object to_json(const Error& error);
[[nodiscard]] Error error_from_json(const boost::json::object& document);

}  // namespace ghost::base
