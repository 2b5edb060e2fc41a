// The state database as a seam: rows in, rows out. What was wanted (VMs, images)
// and every operation; the documents are the agent's and opaque here.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace ghost::storage {

struct VmRow {
    std::string id;        // the domain's UUID
    std::string name;      // unique
    std::string document;  // JSON
};
struct OperationRow {
    std::string id;
    std::string state;  // "pending" | "running" | "succeeded" | "failed" | "cancelled"
    std::int64_t created_ms = 0;
    std::optional<std::int64_t> finished_ms;
    std::string document;  // JSON
};
struct ImageRow {
    std::string name;
    std::string document;  // JSON
};

// A VM's new document where its row still is, and nothing where it isn't: an operation that ends beside the VM's own
// deletion must not bring it back.
struct UpdateVm {
    std::string id;
    std::string document;
};
struct EraseVm {
    std::string id;
};
struct EraseImage {
    std::string name;
};
// Of the finished ones: those that ended before, and of the others all but the `keep` youngest.
struct PruneOperations {
    std::int64_t finished_before_ms = 0;
    std::uint32_t keep = 0;
};

// One event of the stream, and with it what readers were last told of its subject.
struct EventRow {
    std::uint64_t id = 0;  // grows; never used twice
    std::string subject;   // "/v1/vms/<id>"; empty: it tells of no subject's state
    std::string version;   // of the subject, as told; empty: that it is gone
    std::string document;  // JSON
};
// All but the `keep` youngest.
struct PruneEvents {
    std::uint32_t keep = 0;
};
// The subject is gone and nobody needs to be told.
struct ForgetSubject {
    std::string subject;
};
// An Idempotency-Key and the operation its request began.
struct KeyRow {
    std::string key;          // with the identity it belongs to
    std::string fingerprint;  // of the request
    std::string operation;    // id
    std::int64_t created_ms = 0;
};
// Those made before, and of the others all but the `keep` youngest.
struct PruneKeys {
    std::int64_t created_before_ms = 0;
    std::uint32_t keep = 0;
};
// A fact about the whole agent: "boot_id".
struct FactRow {
    std::string name;
    std::string value;
};
// Not empty: the database was damaged, and what is in it was taken from its copy. For whoever has to mend what it
// holds, who then empties it.
inline constexpr std::string_view from_copy_fact = "from_copy";

// A command of Ghost Core: what makes it known when it comes again.
struct CommandRow {
    std::string id;  // Core's
    std::int64_t received_ms = 0;
    bool confirmed = false;  // Core has its result
    std::string document;    // JSON
};
// Of the confirmed ones: those received before, and of the others all but the `keep` youngest.
struct PruneCommands {
    std::int64_t received_before_ms = 0;
    std::uint32_t keep = 0;
};
// What happened, for Ghost Core to be told once.
struct OutboxRow {
    std::uint64_t rev = 0;  // grows
    std::int64_t at_ms = 0;
    std::string document;  // JSON
};
struct PruneOutbox {
    std::uint64_t up_to_rev = 0;  // and this one
};

using Change =
    std::variant<VmRow, UpdateVm, OperationRow, ImageRow, EraseVm, EraseImage, PruneOperations, EventRow, PruneEvents,
                 ForgetSubject, KeyRow, PruneKeys, FactRow, CommandRow, PruneCommands, OutboxRow, PruneOutbox>;
using Changes = std::vector<Change>;  // one transaction

struct StoredState {
    std::vector<VmRow> vms;
    std::vector<OperationRow> operations;  // oldest first
    std::vector<ImageRow> images;
    std::vector<EventRow> events = {};                 // oldest first, without subject and version
    std::map<std::string, std::string> subjects = {};  // -> version
    std::vector<KeyRow> keys = {};                     // oldest first
    std::map<std::string, std::string> facts = {};
    std::vector<CommandRow> commands = {};  // oldest first
    std::vector<OutboxRow> outbox = {};     // by rev
};

// How the database fares, for conditions and metrics.
struct StoreHealth {
    std::string loss;            // what was lost when it was opened, in words; empty: nothing
    std::string fault;           // of the last write, while it fails
    bool reserve = true;         // the room kept back for the journal's end on a full disk is still there
    std::int64_t copied_ms = 0;  // when the last good copy was made, 0: never
};

// Errors: insufficient_storage, io_error. Whatever commit() reported as done survives kill -9 and power loss.
class StateStore {
public:
    virtual ~StateStore() = default;
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<StoredState>> load() = 0;
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<void>> commit(Changes changes) = 0;
    // Makes a good copy beside it, whole or not at all.
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<void>> back_up() = 0;
    [[nodiscard]] virtual StoreHealth health() const = 0;            // loop thread
    [[nodiscard]] virtual boost::asio::awaitable<void> close() = 0;  // after everything committed so far
};

}  // namespace ghost::storage
