#include "agent/operations/idempotency.hpp"

#include <utility>

namespace ghost::agent {

void IdempotencyKeys::restore(const std::vector<storage::KeyRow>& rows) {
    for (const auto& row : rows) put(row);
}

base::Result<std::optional<std::string>> IdempotencyKeys::find(const base::IdempotencyKey& key) const {
    const auto it = rows_.find(key.key);
    if (it == rows_.end() || it->second.created_ms < base::to_unix_ms(clock_.wall() - lifetime)) return std::nullopt;
    if (it->second.fingerprint == key.fingerprint) return it->second.operation;
    base::Error other{base::Errc::idempotency_mismatch,
                      "this Idempotency-Key came with another request before; a new request takes a new key"};
    other.facts["operation"] = "/v1/operations/" + it->second.operation;
    return base::fail(std::move(other));
}

storage::KeyRow IdempotencyKeys::row(const base::IdempotencyKey& key, const std::string& operation) const {
    return {key.key, key.fingerprint, operation, base::to_unix_ms(clock_.wall())};
}

void IdempotencyKeys::put(storage::KeyRow row) {
    if (const auto old = rows_.find(row.key); old != rows_.end()) by_age_.erase({old->second.created_ms, row.key});
    by_age_.emplace(row.created_ms, row.key);
    auto key = row.key;
    rows_.insert_or_assign(std::move(key), std::move(row));
    while (rows_.size() > max_keys) {
        rows_.erase(by_age_.begin()->second);
        by_age_.erase(by_age_.begin());
    }
}

storage::PruneKeys IdempotencyKeys::prune() {
    const auto before = base::to_unix_ms(clock_.wall() - lifetime);
    while (!by_age_.empty() && by_age_.begin()->first < before) {
        rows_.erase(by_age_.begin()->second);
        by_age_.erase(by_age_.begin());
    }
    return {before, max_keys};
}

}  // namespace ghost::agent
