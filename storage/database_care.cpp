#include "storage/database_care.hpp"

#include "storage/state_schema.hpp"
#include "storage/state_tables.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <set>
#include <utility>
#include <vector>

namespace ghost::storage {
namespace {

using base::Errc;
using base::Result;

constexpr std::size_t sets_kept = 3;
constexpr std::array<std::string_view, 3> parts{"", "-wal", "-shm"};  // the first decides: without it there is none
constexpr std::string_view aside{".damaged-"};
constexpr std::size_t stamp_length = std::string_view{"20260102T030405Z"}.size();
constexpr std::chrono::minutes between_looks{1};

std::string name_of(const std::string& path) { return std::filesystem::path{path}.filename().string(); }

Result<void> remove_temporary(const DatabasePlace& place, const std::string& path) {
    for (const auto* const suffix : {"", "-journal"})
        if (auto gone = place.files.remove(path + suffix); !gone) return gone;
    return {};
}

Result<sqlite::Database> open_checked(const DatabasePlace& place, const std::string& path) {
    auto database = sqlite::Database::open(path, {place.files.vfs(), true});
    if (!database) return database;
    const auto check = database->first_text("PRAGMA quick_check(1)");
    if (!check) return base::fail(check.error());
    if (*check != "ok") return base::fail(Errc::io_error, fmt::format("{} is damaged ({})", path, *check));
    return database;
}

Result<void> make_copy(sqlite::Database& database, const DatabasePlace& place, const std::string& to) {
    // SQLite writes into an empty file but doesn't choose its mode.
    if (auto made = place.files.make_private(to); !made) return made;
    auto vacuum = database.prepare("VACUUM INTO ?");
    if (!vacuum) return base::fail(std::move(vacuum).error());
    vacuum->bind(1, to);
    if (auto done = vacuum->run(); !done) return done;
    if (auto checked = open_checked(place, to); !checked) return base::fail(std::move(checked).error());
    return place.files.sync(to);
}

// The stamps of what was set aside, oldest first.
Result<std::set<std::string>> stamps_of(const DatabasePlace& place, const std::vector<std::string>& names) {
    std::set<std::string> stamps;
    const auto prefix = name_of(place.path) + std::string{aside};
    for (const auto& name : names)
        if (name.starts_with(prefix) && name.size() >= prefix.size() + stamp_length)
            stamps.insert(name.substr(prefix.size(), stamp_length));
    return stamps;
}

Result<std::set<std::string>> stamps_of(const DatabasePlace& place) {
    const auto names = place.files.beside(place.path);
    if (!names) return base::fail(names.error());
    return stamps_of(place, *names);
}

std::string stamp(base::Wall time) {
    return fmt::format("{:%Y%m%dT%H%M%SZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(time)));
}

void forget_oldest(const DatabasePlace& place, std::set<std::string> stamps) {
    for (; stamps.size() > sets_kept; stamps.erase(stamps.begin()))
        for (const auto part : parts)
            static_cast<void>(place.files.remove(place.beside(aside) + *stamps.begin() + std::string{part}));
}

Result<StoredState> read_copy(const DatabasePlace& place) {
    auto copy = open_checked(place, place.copy());
    if (!copy) return base::fail(std::move(copy).error());
    const auto version = version_of(*copy);
    if (!version) return base::fail(version.error());
    if (*version > newest_version()) return base::fail(Errc::io_error, place.copy() + " is of a newer version");
    return read_state(*copy);
}

}  // namespace

Result<void> copy_database(sqlite::Database& database, const DatabasePlace& place, const std::string& to) {
    const auto temporary = to + ".new";
    if (auto gone = remove_temporary(place, temporary); !gone) return gone;
    auto made = make_copy(database, place, temporary);
    if (made) made = place.files.rename(temporary, to);
    if (made) return place.files.sync_directory_of(to);
    static_cast<void>(remove_temporary(place, temporary));
    made.error().detail = fmt::format("no copy of the state database could be made: {}", made.error().detail);
    return made;
}

Result<void> copy_before_migration(sqlite::Database& database, const DatabasePlace& place, int version) {
    const auto to = place.beside(fmt::format(".v{}", version));
    if (auto copied = copy_database(database, place, to); !copied) return copied;
    const auto names = place.files.beside(place.path);
    if (!names) return base::fail(names.error());
    const auto prefix = name_of(place.path) + ".v";
    for (const auto& name : *names) {
        const auto digits = name.starts_with(prefix) ? std::string_view{name}.substr(prefix.size()) : "";
        const bool ours = !digits.empty() && std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; });
        if (ours && name != name_of(to))
            static_cast<void>(place.files.remove(place.beside(".v") + std::string{digits}));
    }
    return {};
}

Result<std::optional<std::string>> set_aside(const DatabasePlace& place, base::Wall now) {
    auto stamps = stamps_of(place);
    if (!stamps) return base::fail(std::move(stamps).error());
    auto time = now;
    while (stamps->contains(stamp(time))) time += std::chrono::seconds{1};
    auto to = place.beside(aside) + stamp(time);
    bool moved = false;
    for (const auto part : parts) {
        const auto from = place.beside(part);
        const auto found = place.files.find(from);
        if (!found) return base::fail(found.error());
        if (!*found) continue;
        if (auto done = place.files.rename(from, to + std::string{part}); !done)
            return base::fail(std::move(done).error());
        moved = true;
    }
    if (!moved) return std::nullopt;
    if (auto synced = place.files.sync_directory_of(place.path); !synced) return base::fail(std::move(synced).error());
    stamps->insert(stamp(time));
    forget_oldest(place, *std::move(stamps));
    return to;
}

Result<std::optional<std::string>> newest_set_aside(const DatabasePlace& place) {
    const auto stamps = stamps_of(place);
    if (!stamps) return base::fail(stamps.error());
    if (stamps->empty()) return std::nullopt;
    return place.beside(aside) + *stamps->rbegin();
}

TakenOver take_from_copy(const DatabasePlace& place) {
    const auto found = place.files.find(place.copy());
    if (found && !*found) return {{}, "There was no copy to take anything from."};
    auto state = read_copy(place);
    if (!state) return {{}, fmt::format("Nothing could be taken from its copy: {}.", state.error().detail)};
    TakenOver taken;
    std::set<std::string> operations;
    std::size_t keys = 0;
    const auto images = state->images.size();
    for (auto& row : state->images) taken.changes.emplace_back(std::move(row));
    for (auto& row : state->operations) {
        if (!row.finished_ms) continue;
        operations.insert(row.id);
        taken.changes.emplace_back(std::move(row));
    }
    for (auto& row : state->keys) {
        if (!operations.contains(row.operation)) continue;
        ++keys;
        taken.changes.emplace_back(std::move(row));
    }
    for (auto& [name, value] : state->facts)
        if (name != "boot_id") taken.changes.emplace_back(FactRow{name, std::move(value)});
    taken.changes.emplace_back(FactRow{std::string{from_copy_fact}, "1"});
    const auto commands = state->commands.size();
    for (auto& row : state->commands) taken.changes.emplace_back(std::move(row));
    for (auto& row : state->outbox) taken.changes.emplace_back(std::move(row));
    const auto when = found ? base::rfc3339(base::from_unix_ms((*found)->modified_ms)) : "an unknown time";
    taken.told = fmt::format(
        "{} images, {} finished operations, {} idempotency keys and {} commands were taken from its "
        "copy of {}.",
        images, operations.size(), keys, commands, when);
    return taken;
}

void DiskReserve::restore(base::Instant now) {
    if (held_ || (looked_ && now - *looked_ < between_looks)) return;
    looked_ = now;
    held_ = make();
}

bool DiskReserve::make() {
    const auto path = place_.beside(".reserve");
    const auto found = place_.files.find(path);
    if (!found) return false;
    if (*found && (*found)->bytes == size && (*found)->whole) return true;
    if (const auto gone = place_.files.remove(path); !gone) return false;
    const auto free = place_.files.free_bytes(path);
    return free && *free >= 4 * size && place_.files.allocate(path, size);
}

bool DiskReserve::give_up(base::Instant now) {
    // Also one of which we don't know yet.
    const auto path = place_.beside(".reserve");
    const auto found = place_.files.find(path);
    looked_ = now;
    held_ = false;
    return found && *found && place_.files.remove(path);
}

}  // namespace ghost::storage
