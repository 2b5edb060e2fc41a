// StateStore in SQLite: WAL, synchronous=FULL, one thread of its own.
#pragma once

#include "base/log.hpp"
#include "storage/state_store.hpp"

#include <memory>
#include <string>

namespace ghost::storage {

// Opens or makes the database, migrates it by `user_version`, checks its integrity. A database of a newer version is
// refused with a sentence. Blocking: for start-up. Errors: io_error.
[[nodiscard]] base::Result<std::unique_ptr<StateStore>> open_sqlite_store(const std::string& path, base::Log& log);

}  // namespace ghost::storage
