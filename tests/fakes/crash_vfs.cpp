#include "fakes/crash_vfs.hpp"

#include "fakes/crash_disk.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string_view>

namespace ghost::fakes {
namespace {

// Behind what SQLite allocates for an open file. Its address is the holder of locks.
struct Handle {
    CrashVfs& vfs;
    std::shared_ptr<CrashFile> file;
    std::string erase_at_close;  // path; empty: stays
    bool names_with_it;          // as SQLite's own file system syncs a journal's directory with it
};
struct OpenFile {
    sqlite3_file base;
    Handle* handle;
};

Handle& handle_of(sqlite3_file* file) { return *reinterpret_cast<OpenFile*>(file)->handle; }
bool dead(sqlite3_file* file) { return !handle_of(file).vfs.alive(); }
bool off(const Handle& handle) { return !handle.vfs.alive() || handle.vfs.disk().stopped(); }

void drop(CrashFile::Slot& slot, const Handle* holder) {
    if (slot.owner == holder) slot.owner = nullptr;
    std::erase(slot.sharers, holder);
}

int close(sqlite3_file* file) {
    const std::unique_ptr<Handle> handle{&handle_of(file)};
    handle->file->locks.erase(handle.get());
    for (auto& slot : handle->file->slots) drop(slot, handle.get());
    if (!handle->erase_at_close.empty() && !off(*handle))
        static_cast<void>(handle->vfs.disk().erase(handle->erase_at_close, false));
    return SQLITE_OK;
}

int read(sqlite3_file* file, void* to, int count, sqlite3_int64 offset) {
    const auto& handle = handle_of(file);
    if (off(handle)) return SQLITE_IOERR_READ;
    const auto& bytes = handle.file->bytes();
    const auto from = std::min(bytes.size(), static_cast<std::size_t>(offset));
    const auto wanted = static_cast<std::size_t>(count);
    const auto found = std::min(wanted, bytes.size() - from);
    std::memcpy(to, bytes.data() + from, found);
    std::memset(static_cast<char*>(to) + found, 0, wanted - found);
    return found == wanted ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

int write(sqlite3_file* file, const void* from, int count, sqlite3_int64 offset) {
    if (dead(file)) return SQLITE_IOERR_WRITE;
    const auto& handle = handle_of(file);
    const std::string_view data{static_cast<const char*>(from), static_cast<std::size_t>(count)};
    return handle.vfs.disk().write(*handle.file, static_cast<std::uint64_t>(offset), data);
}

int truncate(sqlite3_file* file, sqlite3_int64 size) {
    if (dead(file)) return SQLITE_IOERR_TRUNCATE;
    const auto& handle = handle_of(file);
    return handle.vfs.disk().truncate(*handle.file, static_cast<std::uint64_t>(size));
}

int sync(sqlite3_file* file, int) {
    if (dead(file)) return SQLITE_IOERR_FSYNC;
    auto& handle = handle_of(file);
    const auto code = handle.vfs.disk().sync(*handle.file, handle.names_with_it);
    if (code == SQLITE_OK) handle.names_with_it = false;
    return code;
}

int file_size(sqlite3_file* file, sqlite3_int64* size) {
    if (off(handle_of(file))) return SQLITE_IOERR_FSTAT;
    *size = static_cast<sqlite3_int64>(handle_of(file).file->bytes().size());
    return SQLITE_OK;
}

int others_highest(const CrashFile& file, const Handle* own) {
    int highest = SQLITE_LOCK_NONE;
    for (const auto& [holder, level] : file.locks)
        if (holder != own) highest = std::max(highest, level);
    return highest;
}

int lock(sqlite3_file* file, int level) {
    auto& handle = handle_of(file);
    if (off(handle)) return SQLITE_IOERR_LOCK;
    auto& own = handle.file->locks[&handle];
    if (own >= level) return SQLITE_OK;
    const auto others = others_highest(*handle.file, &handle);
    if (level == SQLITE_LOCK_SHARED && others >= SQLITE_LOCK_PENDING) return SQLITE_BUSY;
    if (level > SQLITE_LOCK_SHARED && others >= SQLITE_LOCK_RESERVED) return SQLITE_BUSY;
    if (level == SQLITE_LOCK_EXCLUSIVE && others >= SQLITE_LOCK_SHARED) {
        own = SQLITE_LOCK_PENDING;
        return SQLITE_BUSY;
    }
    own = level;
    return SQLITE_OK;
}

int unlock(sqlite3_file* file, int level) {
    auto& handle = handle_of(file);
    auto& own = handle.file->locks[&handle];
    own = std::min(own, level);
    return SQLITE_OK;
}

int check_reserved(sqlite3_file* file, int* result) {
    const auto& handle = handle_of(file);
    *result = static_cast<int>(others_highest(*handle.file, nullptr) >= SQLITE_LOCK_RESERVED);
    return SQLITE_OK;
}

int control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int sector_size(sqlite3_file*) { return 512; }
int characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

int map_shared(sqlite3_file* file, int page, int bytes, int extend, void volatile** memory) {
    const auto& handle = handle_of(file);
    *memory = nullptr;
    if (off(handle)) return SQLITE_IOERR_SHMMAP;
    auto& pages = handle.file->shared_memory;
    const auto index = static_cast<std::size_t>(page);
    if (index >= pages.size() && extend == 0) return SQLITE_OK;
    while (pages.size() <= index) {
        const auto units = static_cast<std::size_t>(bytes) / sizeof(std::max_align_t);
        pages.push_back(std::make_unique<std::vector<std::max_align_t>>(units));
    }
    *memory = pages[index]->data();
    return SQLITE_OK;
}

int lock_shared(sqlite3_file* file, int offset, int count, int flags) {
    auto& handle = handle_of(file);
    const auto slots =
        std::span{handle.file->slots}.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(count));
    if ((flags & SQLITE_SHM_UNLOCK) != 0) {
        for (auto& slot : slots) drop(slot, &handle);
        return SQLITE_OK;
    }
    if (off(handle)) return SQLITE_IOERR_SHMLOCK;
    const bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
    for (const auto& slot : slots) {
        if (slot.owner != nullptr && slot.owner != &handle) return SQLITE_BUSY;
        const bool alone = std::ranges::all_of(slot.sharers, [&](const void* one) { return one == &handle; });
        if (exclusive && !alone) return SQLITE_BUSY;
    }
    for (auto& slot : slots) {
        if (exclusive)
            slot.owner = &handle;
        else
            slot.sharers.push_back(&handle);
    }
    return SQLITE_OK;
}

void barrier(sqlite3_file*) {}

int unmap_shared(sqlite3_file* file, int remove) {
    auto& handle = handle_of(file);
    for (auto& slot : handle.file->slots) drop(slot, &handle);
    if (remove != 0) handle.file->shared_memory.clear();
    return SQLITE_OK;
}

constexpr sqlite3_io_methods methods{.iVersion = 2,
                                     .xClose = close,
                                     .xRead = read,
                                     .xWrite = write,
                                     .xTruncate = truncate,
                                     .xSync = sync,
                                     .xFileSize = file_size,
                                     .xLock = lock,
                                     .xUnlock = unlock,
                                     .xCheckReservedLock = check_reserved,
                                     .xFileControl = control,
                                     .xSectorSize = sector_size,
                                     .xDeviceCharacteristics = characteristics,
                                     .xShmMap = map_shared,
                                     .xShmLock = lock_shared,
                                     .xShmBarrier = barrier,
                                     .xShmUnmap = unmap_shared,
                                     .xFetch = nullptr,
                                     .xUnfetch = nullptr};

CrashVfs& self(sqlite3_vfs* vfs) { return *static_cast<CrashVfs*>(vfs->pAppData); }
bool off(CrashVfs& vfs) { return !vfs.alive() || vfs.disk().stopped(); }

int open_file(sqlite3_vfs* vfs, sqlite3_filename name, sqlite3_file* file, int flags, int* got) {
    file->pMethods = nullptr;
    auto& own = self(vfs);
    if (off(own)) return SQLITE_CANTOPEN;
    std::shared_ptr<CrashFile> found;
    if (name == nullptr) {
        found = std::make_shared<CrashFile>();
    } else {
        const bool create = (flags & SQLITE_OPEN_CREATE) != 0;
        if (const auto code = own.disk().open(name, create, found); code != SQLITE_OK) return code;
    }
    const bool erase = name != nullptr && (flags & SQLITE_OPEN_DELETEONCLOSE) != 0;
    const bool journal = (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL)) != 0;
    auto handle = std::make_unique<Handle>(own, std::move(found), erase ? name : "", journal);
    reinterpret_cast<OpenFile*>(file)->handle = handle.release();
    file->pMethods = &methods;
    if (got != nullptr) *got = flags;
    return SQLITE_OK;
}

int erase_file(sqlite3_vfs* vfs, const char* name, int durably) {
    auto& own = self(vfs);
    return off(own) ? SQLITE_IOERR_DELETE : own.disk().erase(name, durably != 0);
}

int access_file(sqlite3_vfs* vfs, const char* name, int flags, int* result) {
    auto& own = self(vfs);
    if (off(own)) return SQLITE_IOERR_ACCESS;
    const auto found = own.disk().file(name);
    // As SQLite's own: an empty file is none.
    *result = static_cast<int>(found && (flags != SQLITE_ACCESS_EXISTS || !found->bytes().empty()));
    return SQLITE_OK;
}

int full_name(sqlite3_vfs*, const char* name, int size, char* out) {
    sqlite3_snprintf(size, out, "%s", name);
    return SQLITE_OK;
}

// Only the same numbers at every run.
int randomness(sqlite3_vfs*, int count, char* out) {
    for (int i = 0; i < count; ++i) out[i] = static_cast<char>(i * 31 + 7);
    return count;
}

int no_sleep(sqlite3_vfs*, int microseconds) { return microseconds; }

int current_time(sqlite3_vfs* vfs, double* day) {
    *day = 2440587.5 + static_cast<double>(self(vfs).disk().now_ms()) / 86'400'000.0;
    return SQLITE_OK;
}

int last_error(sqlite3_vfs*, int, char*) { return 0; }

}  // namespace

CrashVfs::CrashVfs(CrashDisk& disk) : disk_(disk), name_(fmt::format("crash-{}", static_cast<const void*>(this))) {
    vfs_.iVersion = 1;
    vfs_.szOsFile = sizeof(OpenFile);
    vfs_.mxPathname = 1024;
    vfs_.zName = name_.c_str();
    vfs_.pAppData = this;
    vfs_.xOpen = open_file;
    vfs_.xDelete = erase_file;
    vfs_.xAccess = access_file;
    vfs_.xFullPathname = full_name;
    vfs_.xRandomness = randomness;
    vfs_.xSleep = no_sleep;
    vfs_.xCurrentTime = current_time;
    vfs_.xGetLastError = last_error;
    if (sqlite3_vfs_register(&vfs_, 0) != SQLITE_OK) throw std::runtime_error{"SQLite takes no file system"};
}

CrashVfs::~CrashVfs() { sqlite3_vfs_unregister(&vfs_); }

}  // namespace ghost::fakes
