#include "storage/state_schema.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <limits>
#include <string>

namespace ghost::storage {
namespace {

using base::Result;

// migrations[n] makes a database of version n into one of version n + 1. They are never edited once released.
constexpr std::array migrations{
    R"(CREATE TABLE vms(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, document TEXT NOT NULL) STRICT;
       CREATE TABLE operations(id TEXT PRIMARY KEY NOT NULL, state TEXT NOT NULL, created_ms INTEGER NOT NULL,
                               finished_ms INTEGER, document TEXT NOT NULL) STRICT;
       CREATE INDEX operations_by_creation ON operations(created_ms);
       CREATE INDEX operations_by_finish ON operations(finished_ms) WHERE finished_ms IS NOT NULL;
       CREATE TABLE images(name TEXT PRIMARY KEY NOT NULL, document TEXT NOT NULL) STRICT;)",
    R"(CREATE TABLE events(id INTEGER PRIMARY KEY NOT NULL, document TEXT NOT NULL) STRICT;
       CREATE TABLE subjects(subject TEXT PRIMARY KEY NOT NULL, version TEXT NOT NULL) STRICT;
       CREATE TABLE keys(key TEXT PRIMARY KEY NOT NULL, fingerprint TEXT NOT NULL, operation TEXT NOT NULL,
                         created_ms INTEGER NOT NULL) STRICT;
       CREATE TABLE facts(name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) STRICT;)",
    R"(CREATE TABLE commands(id TEXT PRIMARY KEY NOT NULL, received_ms INTEGER NOT NULL, confirmed INTEGER NOT NULL,
                             document TEXT NOT NULL) STRICT;
       CREATE INDEX commands_confirmed ON commands(received_ms, id) WHERE confirmed;
       CREATE TABLE outbox(rev INTEGER PRIMARY KEY NOT NULL, at_ms INTEGER NOT NULL, document TEXT NOT NULL) STRICT;)",
};

}  // namespace

int newest_version() noexcept { return static_cast<int>(migrations.size()); }

Result<int> version_of(sqlite::Database& database) {
    const auto text = database.first_text("PRAGMA user_version");
    if (!text) return base::fail(text.error());
    int version = 0;
    const auto parsed = std::from_chars(text->data(), text->data() + text->size(), version);
    // Below zero is none of ours: as good as from the future.
    return parsed.ec == std::errc{} && version >= 0 ? version : std::numeric_limits<int>::max();
}

Result<void> migrate_from(sqlite::Database& database, int version) {
    auto made = database.execute(migrations.at(static_cast<std::size_t>(version)));
    if (!made) return made;
    return database.execute(fmt::format("PRAGMA user_version = {}", version + 1));
}

}  // namespace ghost::storage
