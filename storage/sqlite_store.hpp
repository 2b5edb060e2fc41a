// StateStore in SQLite: WAL, synchronous=FULL, one thread of its own.
#pragma once

#include "base/log.hpp"
#include "storage/database_files.hpp"
#include "storage/state_store.hpp"

#include <memory>
#include <string>

namespace ghost::storage {

// What a simulation puts in the machine's place. All that is named here outlives the store.
struct StoreOptions {
    const base::Clock* clock = nullptr;  // null: the machine's; asked on the loop
    DatabaseFiles* files = nullptr;      // null: the machine's
    bool exclusive = false;              // SQLite needs no shared memory then, and nobody else can open the database
    bool inline_jobs = false;            // on the loop's own thread, after one post
};

// Opens or makes the database, migrates it by `user_version` after a copy was made, checks its integrity. One that is
// damaged or was lost is made anew from its good copy (StoreHealth::loss); one of a newer version is refused with a
// sentence. Blocking: for start-up. Errors: insufficient_storage, io_error.
[[nodiscard]] base::Result<std::unique_ptr<StateStore>> open_sqlite_store(const std::string& path, base::Log& log,
                                                                          const StoreOptions& options = {});

}  // namespace ghost::storage
