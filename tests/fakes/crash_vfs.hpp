// The file system that SQLite sees on a CrashDisk, from one start of its machine to the next.
#pragma once

#include <sqlite3.h>

#include <string>

namespace ghost::fakes {

class CrashDisk;

// Registered with SQLite while it lives, under a name of its own; stays behind, dead, for what is still open.
class CrashVfs {
public:
    explicit CrashVfs(CrashDisk& disk);
    ~CrashVfs();
    CrashVfs(const CrashVfs&) = delete;
    CrashVfs& operator=(const CrashVfs&) = delete;

    [[nodiscard]] const char* name() const noexcept { return name_.c_str(); }
    [[nodiscard]] CrashDisk& disk() const noexcept { return disk_; }
    [[nodiscard]] bool alive() const noexcept { return alive_; }
    void die() noexcept { alive_ = false; }

private:
    CrashDisk& disk_;
    std::string name_;
    sqlite3_vfs vfs_{};
    bool alive_ = true;
};

}  // namespace ghost::fakes
