// Which operation a client's Idempotency-Key stands for.
#pragma once

#include "base/clock.hpp"
#include "base/context.hpp"
#include "base/error.hpp"
#include "storage/state_store.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace ghost::agent {

// Loop thread only. Keys live for a day, and no more than `max_keys` at a time: the oldest go first.
class IdempotencyKeys {
public:
    explicit IdempotencyKeys(const base::Clock& clock) : clock_(clock) {}

    void restore(const std::vector<storage::KeyRow>& rows);

    // The operation's id; nullopt: the key is new. Errors: idempotency_mismatch, when the key came with another
    // request.
    [[nodiscard]] base::Result<std::optional<std::string>> find(const base::IdempotencyKey& key) const;
    // The row to be committed with what the key stands for; put() when it was.
    [[nodiscard]] storage::KeyRow row(const base::IdempotencyKey& key, const std::string& operation) const;
    void put(storage::KeyRow row);
    // Lets go of the old ones; the change that does it in the database.
    [[nodiscard]] storage::PruneKeys prune();

    [[nodiscard]] std::size_t size() const noexcept { return rows_.size(); }

    static constexpr std::chrono::hours lifetime{24};
    static constexpr std::uint32_t max_keys = 10'000;

private:
    const base::Clock& clock_;
    std::map<std::string, storage::KeyRow, std::less<>> rows_;  // by key
    std::set<std::pair<std::int64_t, std::string>> by_age_;     // and the keys again
};

}  // namespace ghost::agent
