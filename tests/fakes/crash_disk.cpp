#include "fakes/crash_disk.hpp"

#include "fakes/crash_vfs.hpp"

#include <sqlite3.h>

#include <cerrno>
#include <filesystem>
#include <ranges>
#include <utility>

namespace ghost::fakes {
namespace {

constexpr std::uint64_t sector = 512;

std::string folder_of(const std::string& path) { return std::filesystem::path{path}.parent_path().string(); }
std::string name_of(const std::string& path) { return std::filesystem::path{path}.filename().string(); }

std::unexpected<base::Error> off() { return base::fail(base::Errc::io_error, "the machine is off"); }
std::unexpected<base::Error> not_there(const std::string& path) { return base::fail(base::errno_error(ENOENT, path)); }

}  // namespace

void CrashFile::apply(std::string& to, const Change& change) {
    if (!change.data) {
        to.resize(change.offset);
        return;
    }
    if (to.size() < change.offset + change.data->size()) to.resize(change.offset + change.data->size());
    to.replace(change.offset, change.data->size(), *change.data);
}

// `head`: the first sectors of it; else each of them or not.
void CrashFile::apply_sectors(std::string& to, const Change& change, base::Random& random, bool head) {
    if (!change.data) return;
    const auto end = change.offset + change.data->size();
    for (auto at = change.offset; at < end;) {
        const auto next = std::min(end, (at / sector + 1) * sector);
        const bool kept = random.next() % 2 == 0;
        if (kept) apply(to, {at, change.data->substr(at - change.offset, next - at)});
        if (!kept && head) return;
        at = next;
    }
}

void CrashFile::write(std::uint64_t offset, std::string_view data) {
    unsynced_.push_back({offset, std::string{data}});
    apply(bytes_, unsynced_.back());
}

void CrashFile::truncate(std::uint64_t size) {
    if (size >= bytes_.size()) return;
    unsynced_.push_back({size, std::nullopt});
    apply(bytes_, unsynced_.back());
}

void CrashFile::sync() {
    for (const auto& change : unsynced_) apply(synced_, change);
    unsynced_.clear();
}

std::shared_ptr<CrashFile> CrashFile::after_crash(base::Random& random) const {
    auto bytes = synced_;
    const bool in_order = random.next() % 2 == 0;
    const auto kept = random.next() % (unsynced_.size() + 1);
    for (std::size_t i = 0; i < unsynced_.size(); ++i) {
        const auto& change = unsynced_[i];
        if (in_order) {
            if (i < kept) apply(bytes, change);
            if (i == kept) apply_sectors(bytes, change, random, true);
        } else if (const auto fate = random.next() % 3; fate == 0) {
            apply(bytes, change);
        } else if (fate == 1) {
            apply_sectors(bytes, change, random, false);
        }
    }
    auto left = std::make_shared<CrashFile>();
    left->bytes_ = left->synced_ = std::move(bytes);
    left->reserved_ = reserved_;
    left->modified_ms = modified_ms;
    return left;
}

std::shared_ptr<CrashFile> CrashFile::after_kill() const {
    auto left = std::make_shared<CrashFile>();
    left->bytes_ = bytes_;
    left->synced_ = synced_;
    left->unsynced_ = unsynced_;
    left->reserved_ = reserved_;
    left->modified_ms = modified_ms;
    return left;
}

CrashDisk::CrashDisk(const base::Clock& clock) : clock_(clock) { lives_.push_back(std::make_unique<CrashVfs>(*this)); }

CrashDisk::~CrashDisk() = default;

void CrashDisk::apply(Names& names, const Renaming& renaming) {
    if (renaming.from.empty()) {
        names[renaming.to] = renaming.file;
        return;
    }
    const auto found = names.find(renaming.from);
    if (found == names.end()) return;
    const auto file = found->second;
    names.erase(found);
    if (!renaming.to.empty()) names[renaming.to] = file;
}

void CrashDisk::change_names(Renaming renaming) {
    apply(names_, renaming);
    unsynced_names_.push_back(std::move(renaming));
}

bool CrashDisk::change() {
    if (stopped_) return false;
    ++changes_;
    stopped_ = stop_at_.strikes();
    return true;
}

// A file system keeps its names in the order in which they changed.
void CrashDisk::crash(base::Random& random) {
    const auto kept = random.next() % (unsynced_names_.size() + 1);
    for (std::size_t i = 0; i < kept; ++i) apply(synced_names_, unsynced_names_[i]);
    Names survivors;
    for (const auto& [path, file] : synced_names_) survivors.emplace(path, file->after_crash(random));
    unsynced_names_.clear();
    synced_names_ = survivors;
    restart(std::move(survivors));
}

void CrashDisk::kill() {
    std::map<const CrashFile*, std::shared_ptr<CrashFile>> left;
    const auto renewed = [&](const std::shared_ptr<CrashFile>& file) {
        auto& found = left[file.get()];
        if (!found) found = file->after_kill();
        return found;
    };
    Names survivors;
    for (const auto& [path, file] : names_) survivors.emplace(path, renewed(file));
    for (auto& file : std::views::values(synced_names_)) file = renewed(file);
    for (auto& renaming : unsynced_names_)
        if (renaming.file) renaming.file = renewed(renaming.file);
    restart(std::move(survivors));
}

void CrashDisk::restart(Names survivors) {
    names_ = std::move(survivors);
    lives_.back()->die();
    lives_.push_back(std::make_unique<CrashVfs>(*this));
    stopped_ = false;
    stop_at_.set(0);
}

std::uint64_t CrashDisk::used() const {
    std::uint64_t sum = 0;
    for (const auto& file : std::views::values(names_)) sum += file->size();
    return sum;
}

std::shared_ptr<CrashFile> CrashDisk::file(const std::string& path) const {
    const auto found = names_.find(path);
    return found == names_.end() ? nullptr : found->second;
}

void CrashDisk::put(const std::string& path, std::string_view bytes) {
    auto made = std::make_shared<CrashFile>();
    made->write(0, bytes);
    made->sync();
    made->modified_ms = now_ms();
    names_[path] = made;
    synced_names_ = names_;
    unsynced_names_.clear();
}

const char* CrashDisk::vfs() const noexcept { return lives_.back()->name(); }

base::Result<std::optional<storage::DatabaseFile>> CrashDisk::find(const std::string& path) {
    if (stopped_) return off();
    const auto found = file(path);
    if (!found) return std::nullopt;
    return storage::DatabaseFile{found->size(), true, found->modified_ms};
}

base::Result<std::vector<std::string>> CrashDisk::beside(const std::string& path) {
    if (stopped_) return off();
    std::vector<std::string> names;
    for (const auto& other : std::views::keys(names_))
        if (folder_of(other) == folder_of(path)) names.push_back(name_of(other));
    return names;
}

base::Result<void> CrashDisk::make_private(const std::string& path) {
    std::shared_ptr<CrashFile> made;
    if (open(path, true, made) != SQLITE_OK) return off();
    return {};
}

base::Result<void> CrashDisk::allocate(const std::string& path, std::uint64_t bytes) {
    if (!stopped_ && bytes > room()) return base::fail(base::errno_error(ENOSPC, path));
    if (auto made = make_private(path); !made) return made;
    if (stopped_) return off();
    file(path)->reserve(bytes);
    return sync_directory_of(path);
}

base::Result<void> CrashDisk::rename(const std::string& from, const std::string& to) {
    if (!file(from)) return not_there(from);
    if (!change()) return off();
    change_names({from, to, nullptr});
    return {};
}

base::Result<void> CrashDisk::remove(const std::string& path) {
    if (erase(path, false) == SQLITE_IOERR_DELETE) return off();
    return {};
}

base::Result<void> CrashDisk::sync(const std::string& path) {
    const auto found = file(path);
    if (!found) return not_there(path);
    if (sync(*found, false) != SQLITE_OK) return off();
    return {};
}

base::Result<void> CrashDisk::sync_directory_of(const std::string&) {
    if (!change() || stopped_) return off();
    for (const auto& renaming : unsynced_names_) apply(synced_names_, renaming);
    unsynced_names_.clear();
    return {};
}

base::Result<std::uint64_t> CrashDisk::free_bytes(const std::string&) {
    if (stopped_) return off();
    return room();
}

int CrashDisk::open(const std::string& path, bool create, std::shared_ptr<CrashFile>& file) {
    if (stopped_) return SQLITE_IOERR;
    file = this->file(path);
    if (file) return SQLITE_OK;
    if (!create) return SQLITE_CANTOPEN;
    if (!change()) return SQLITE_IOERR;
    file = std::make_shared<CrashFile>();
    file->modified_ms = now_ms();
    change_names({"", path, file});
    return SQLITE_OK;
}

int CrashDisk::write(CrashFile& file, std::uint64_t offset, std::string_view data) {
    if (!change()) return SQLITE_IOERR_WRITE;
    if (write_fault_ != 0) return write_fault_;
    const auto end = offset + data.size();
    if (end > file.size() && end - file.size() > room()) return SQLITE_FULL;
    file.write(offset, data);
    file.modified_ms = now_ms();
    return SQLITE_OK;
}

int CrashDisk::truncate(CrashFile& file, std::uint64_t size) {
    if (!change()) return SQLITE_IOERR_TRUNCATE;
    file.truncate(size);
    return SQLITE_OK;
}

// The power that fails in a sync fails before its end.
int CrashDisk::sync(CrashFile& file, bool with_names) {
    if (!change() || stopped_) return SQLITE_IOERR_FSYNC;
    if (sync_fault_ != 0) return sync_fault_;
    file.sync();
    if (with_names && !sync_directory_of({})) return SQLITE_IOERR_DIR_FSYNC;
    return SQLITE_OK;
}

int CrashDisk::erase(const std::string& path, bool durably) {
    if (stopped_) return SQLITE_IOERR_DELETE;
    if (!file(path)) return SQLITE_IOERR_DELETE_NOENT;
    if (!change()) return SQLITE_IOERR_DELETE;
    change_names({path, "", nullptr});
    if (durably && !sync_directory_of(path)) return SQLITE_IOERR_DIR_FSYNC;
    return SQLITE_OK;
}

}  // namespace ghost::fakes
