// The state database as a seam: rows in, rows out. What was wanted (VMs, images)
// and every operation; the documents are the agent's and opaque here.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
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

using Change = std::variant<VmRow, UpdateVm, OperationRow, ImageRow, EraseVm, EraseImage, PruneOperations>;
using Changes = std::vector<Change>;  // one transaction

struct StoredState {
    std::vector<VmRow> vms;
    std::vector<OperationRow> operations;  // oldest first
    std::vector<ImageRow> images;
};

// Errors: insufficient_storage, io_error. Whatever commit() reported as done survives kill -9 and power loss.
class StateStore {
public:
    virtual ~StateStore() = default;
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<StoredState>> load() = 0;
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<void>> commit(Changes changes) = 0;
    [[nodiscard]] virtual boost::asio::awaitable<void> close() = 0;  // after everything committed so far
};

}  // namespace ghost::storage
