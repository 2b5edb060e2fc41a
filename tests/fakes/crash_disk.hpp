// A machine's disk in memory that forgets what was not synced: for SQLite, and for the care around it.
#pragma once

#include "base/clock.hpp"
#include "base/random.hpp"
#include "fakes/countdown.hpp"
#include "storage/database_files.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::fakes {

class CrashVfs;

// A file: what the disk has for certain, and what was changed since.
class CrashFile {
public:
    [[nodiscard]] const std::string& bytes() const noexcept { return bytes_; }
    [[nodiscard]] std::uint64_t size() const noexcept { return std::max<std::uint64_t>(bytes_.size(), reserved_); }
    void write(std::uint64_t offset, std::string_view data);
    void truncate(std::uint64_t size);
    void reserve(std::uint64_t size) { reserved_ = size; }
    void sync();
    // What a power failure leaves of it.
    [[nodiscard]] std::shared_ptr<CrashFile> after_crash(base::Random& random) const;
    [[nodiscard]] std::shared_ptr<CrashFile> after_kill() const;

    std::int64_t modified_ms = 0;

    // SQLite's locks and its shared memory belong to the file: level or slots by holder.
    struct Slot {
        const void* owner = nullptr;
        std::vector<const void*> sharers;
    };
    std::map<const void*, int> locks;
    std::array<Slot, 8> slots;
    std::vector<std::unique_ptr<std::vector<std::max_align_t>>> shared_memory;

private:
    struct Change {
        std::uint64_t offset = 0;
        std::optional<std::string> data;  // none: cut at offset
    };
    static void apply(std::string& to, const Change& change);
    static void apply_sectors(std::string& to, const Change& change, base::Random& random, bool head);

    std::string bytes_;
    std::string synced_;
    std::uint64_t reserved_ = 0;
    std::vector<Change> unsynced_;
};

// One per simulated machine; outlives every store that is opened on it. One thread at a time.
class CrashDisk final : public storage::DatabaseFiles {
public:
    explicit CrashDisk(const base::Clock& clock);
    ~CrashDisk() override;

    // Power fails. Of what was not synced each write is kept, dropped or torn between sectors of 512 bytes; so are
    // names. What was open is dead: it fails and changes nothing.
    void crash(base::Random& random);
    // The process is killed: all that was written stays, what was open is dead.
    void kill();
    // The power fails at the n-th change from now (1: the next): until crash() or kill() everything fails.
    void stop_at(unsigned n) { stop_at_.set(n); }
    [[nodiscard]] bool stopped() const noexcept { return stopped_; }

    // Every write of SQLite's fails with this code of its own (SQLITE_FULL, SQLITE_IOERR_WRITE), until 0 is given.
    void fail_writes(int code) { write_fault_ = code; }
    void fail_syncs(int code) { sync_fault_ = code; }
    // The disk holds so much; more is SQLITE_FULL and insufficient_storage.
    void set_capacity(std::uint64_t bytes) { capacity_ = bytes; }
    [[nodiscard]] std::uint64_t used() const;
    [[nodiscard]] std::uint64_t changes() const noexcept { return changes_; }

    // For a test's arrangements and looks.
    [[nodiscard]] std::shared_ptr<CrashFile> file(const std::string& path) const;
    void put(const std::string& path, std::string_view bytes);  // synced, with all names

    const char* vfs() const noexcept override;
    base::Result<std::optional<storage::DatabaseFile>> find(const std::string& path) override;
    base::Result<std::vector<std::string>> beside(const std::string& path) override;
    base::Result<void> make_private(const std::string& path) override;
    base::Result<void> allocate(const std::string& path, std::uint64_t bytes) override;
    base::Result<void> rename(const std::string& from, const std::string& to) override;
    base::Result<void> remove(const std::string& path) override;
    base::Result<void> sync(const std::string& path) override;
    base::Result<void> sync_directory_of(const std::string& path) override;
    base::Result<std::uint64_t> free_bytes(const std::string& path) override;

    // For the file system that SQLite sees: codes of SQLite's.
    [[nodiscard]] int open(const std::string& path, bool create, std::shared_ptr<CrashFile>& file);
    [[nodiscard]] int write(CrashFile& file, std::uint64_t offset, std::string_view data);
    [[nodiscard]] int truncate(CrashFile& file, std::uint64_t size);
    [[nodiscard]] int sync(CrashFile& file, bool with_names);
    [[nodiscard]] int erase(const std::string& path, bool durably);
    [[nodiscard]] std::int64_t now_ms() const { return base::to_unix_ms(clock_.wall()); }

private:
    using Names = std::map<std::string, std::shared_ptr<CrashFile>>;
    struct Renaming {
        std::string from;                 // empty: `file` gets the name `to`
        std::string to;                   // empty: `from` is removed
        std::shared_ptr<CrashFile> file;  // of a new name
    };
    static void apply(Names& names, const Renaming& renaming);
    void change_names(Renaming renaming);
    [[nodiscard]] bool change();  // false: the power has failed
    void restart(Names survivors);
    [[nodiscard]] std::uint64_t room() const { return capacity_ - std::min(capacity_, used()); }

    const base::Clock& clock_;
    Names names_;
    Names synced_names_;
    std::vector<Renaming> unsynced_names_;
    std::vector<std::unique_ptr<CrashVfs>> lives_;  // one for each life of the machine; the last is the present one
    Countdown stop_at_;
    bool stopped_ = false;
    int write_fault_ = 0;
    int sync_fault_ = 0;
    std::uint64_t capacity_ = std::uint64_t{1} << 40U;
    std::uint64_t changes_ = 0;
};

}  // namespace ghost::fakes
