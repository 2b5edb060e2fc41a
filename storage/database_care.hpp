// What surrounds the state database on the disk: its good copies, and where a damaged one is moved.
#pragma once

#include "base/clock.hpp"
#include "storage/database_files.hpp"
#include "storage/sqlite.hpp"
#include "storage/state_store.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace ghost::storage {

// Where the database is, and by whose hand it is touched.
struct DatabasePlace {
    std::string path;
    DatabaseFiles& files;
    bool exclusive = false;  // SQLite's log needs no shared memory then, and nobody else can open the database

    [[nodiscard]] std::string beside(std::string_view suffix) const { return path + std::string{suffix}; }
    [[nodiscard]] std::string copy() const { return beside(".copy"); }
};

// Copies `database` to the file `to`: checked, synced, whole or not at all.
[[nodiscard]] base::Result<void> copy_database(sqlite::Database& database, const DatabasePlace& place,
                                               const std::string& to);

// The copy that is kept when a database of `version` is about to be migrated. Only the newest such file stays.
[[nodiscard]] base::Result<void> copy_before_migration(sqlite::Database& database, const DatabasePlace& place,
                                                       int version);

// Moves the database's files to names that tell the time. Of such sets three stay. Nothing when there is nothing to
// move.
[[nodiscard]] base::Result<std::optional<std::string>> set_aside(const DatabasePlace& place, base::Wall now);
// The newest that was moved.
[[nodiscard]] base::Result<std::optional<std::string>> newest_set_aside(const DatabasePlace& place);

// What is still true of an older state: images, finished operations with their keys, facts; Ghost Core's commands, so
// that none takes effect twice, and what it has to be told.
struct TakenOver {
    Changes changes;
    std::string told;  // a sentence: what, from where, or why nothing
};
[[nodiscard]] TakenOver take_from_copy(const DatabasePlace& place);

// 4 MiB set aside, to be given up when the disk is full so that what is under way can still be journalled.
class DiskReserve {
public:
    static constexpr std::uint64_t size = 4U << 20U;

    explicit DiskReserve(const DatabasePlace& place) : place_(place) {}

    // Makes it where it isn't and the disk has plenty of room; looks at most once a minute.
    void restore(base::Instant now);
    bool give_up(base::Instant now);  // false: there was none
    [[nodiscard]] bool held() const noexcept { return held_; }

private:
    [[nodiscard]] bool make();

    const DatabasePlace& place_;
    std::optional<base::Instant> looked_;
    bool held_ = false;
};

}  // namespace ghost::storage
