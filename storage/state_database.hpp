// The state database with its care: opened or made anew after damage, written with a reserve for a full disk, copied.
// One thread at a time; blocking.
#pragma once

#include "base/log.hpp"
#include "storage/database_care.hpp"
#include "storage/state_tables.hpp"

#include <optional>
#include <span>
#include <string>

namespace ghost::storage {

// When a call was made.
struct Times {
    base::Wall wall;
    base::Instant now;
};

class StateDatabase {
public:
    StateDatabase(DatabasePlace place, base::Log& log) : place_(std::move(place)), log_(log), reserve_(place_) {}
    StateDatabase(const StateDatabase&) = delete;
    StateDatabase& operator=(const StateDatabase&) = delete;

    // Migrates and checks; damage is no error but a loss. A database of a newer version is refused and left alone.
    [[nodiscard]] base::Result<void> open(Times at);
    // Damage that shows only here is a loss, too.
    [[nodiscard]] base::Result<StoredState> load(Times at);
    // Each whole or not at all; the results are in them.
    void commit(std::span<const std::shared_ptr<Commit>> commits, Times at);
    [[nodiscard]] base::Result<void> back_up(Times at);
    // True: all is in the database's own file.
    [[nodiscard]] base::Result<bool> close();

    [[nodiscard]] StoreHealth health() const;

private:
    // What stands in an opening's way.
    struct Refusal {
        enum class Kind : std::uint8_t { damaged, empty, other };
        Kind kind = Kind::other;
        base::Error error;
    };
    template <class T>
    using Attempt = std::expected<T, Refusal>;
    using Handle = std::shared_ptr<sqlite::Database>;

    [[nodiscard]] static std::unexpected<Refusal> refuse(const Handle& database, base::Error error);
    [[nodiscard]] Attempt<void> try_to_open();
    [[nodiscard]] Attempt<Handle> open_file();
    [[nodiscard]] Attempt<void> migrate(const Handle& database, int version);
    // Whether there has been a database here before, by what lies beside it.
    [[nodiscard]] base::Result<bool> traces();
    // Why the database that must have been here isn't any more; empty: a first start, or it is here.
    [[nodiscard]] base::Result<std::string> missing();
    // Removes a database that holds nothing; a log with something in it stays.
    [[nodiscard]] base::Result<void> remove_empty(bool with_log);
    [[nodiscard]] base::Result<void> start_anew(std::string_view why, Times at);
    [[nodiscard]] base::Result<void> make_new(const Changes& taken);
    [[nodiscard]] base::Result<void> commit_one(const Changes& changes, Times at);

    DatabasePlace place_;
    base::Log& log_;
    DiskReserve reserve_;
    std::optional<Tables> tables_;  // none: closed
    std::string loss_;
    std::string fault_;
    std::int64_t copied_ms_ = 0;
};

}  // namespace ghost::storage
