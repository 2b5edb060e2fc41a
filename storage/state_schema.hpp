// The tables of the state database and how an older one becomes today's.
#pragma once

#include "storage/sqlite.hpp"

namespace ghost::storage {

// What this agent makes and reads.
[[nodiscard]] int newest_version() noexcept;

[[nodiscard]] base::Result<int> version_of(sqlite::Database& database);

// One step, from `version` to the next, within the caller's transaction.
[[nodiscard]] base::Result<void> migrate_from(sqlite::Database& database, int version);

}  // namespace ghost::storage
