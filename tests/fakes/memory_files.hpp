// storage::Files in memory, with faults to switch on. Every call yields to the loop once, as the real one does.
#pragma once

#include "base/random.hpp"
#include "fakes/countdown.hpp"
#include "storage/files.hpp"

#include <cstdint>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::fakes {

class MemoryFiles final : public storage::Files {
public:
    struct Node {
        std::string bytes;
        unsigned mode = 0644;
        bool directory = false;
    };

    MemoryFiles() { nodes_["/"] = {"", 0755, true}; }

    // For a test's arrangements and looks: no faults, no waiting. `put` makes the directories above.
    void put(const std::string& path, std::string bytes, unsigned mode = 0644);
    void put_directory(const std::string& path);
    [[nodiscard]] const Node* find(const std::string& path) const;
    [[nodiscard]] bool exists(const std::string& path) const { return find(path) != nullptr; }
    void erase(const std::string& path) { nodes_.erase(path); }
    // Paths of all regular files, sorted; without the kernel's own.
    [[nodiscard]] std::vector<std::string> files() const;

    // Faults. The n-th change from now on (1: the next) fails; changes are write, remove, rename, make_directories,
    // copy, append.
    void fail_change(unsigned n, base::Error error) {
        failing_.set(n);
        fail_with_ = std::move(error);
    }
    bool throw_in_append = false;  // as memory that ran out would
    // Every operation on a path that contains `part` fails, until an empty `part` is given.
    void fail_paths(std::string part, base::Error error) {
        bad_part_ = std::move(part);
        bad_error_ = std::move(error);
    }
    // The file system holds `bytes` in all its files; more is insufficient_storage.
    void set_capacity(std::uint64_t bytes) { capacity_ = bytes; }
    // A file system of its own at `directory`, of `bytes`.
    void mount(const std::string& directory, std::uint64_t bytes) {
        put_directory(directory);
        mounts_[directory + "/"] = bytes;
    }
    // Changes so far, including failed ones.
    [[nodiscard]] unsigned changes() const noexcept { return changes_; }
    [[nodiscard]] std::uint64_t used() const { return space_at("/").total - space_at("/").free; }

    // The process that uses it is gone, or its machine: a change that is under way is done, left half done or not done,
    // and all that is asked for until power_on() fails. What was answered is there for certain.
    void crash(base::Random& random);
    void power_on() { off_ = false; }
    // How many turns of the loop a call takes beside its first; asked at each. Empty: none.
    std::function<unsigned()> more_turns;

    // What `write` does, at once: for fakes of programs that write files.
    [[nodiscard]] base::Result<void> store(const std::string& path, std::string bytes, unsigned mode);

    Task<std::optional<storage::FileInfo>> stat(std::string path) override;
    Task<std::string> read(std::string path, std::size_t max_bytes) override;
    Task<std::string> read_head(std::string path, std::size_t bytes) override;
    Task<std::string> read_tail(std::string path, std::size_t bytes) override;
    Task<void> write(std::string path, std::string bytes, unsigned mode) override;
    Task<void> remove(std::string path) override;
    Task<void> rename(std::string from, std::string to) override;
    Task<void> make_directories(std::string path, unsigned mode) override;
    Task<std::vector<std::string>> list(std::string directory) override;
    // In chunks of 64 KiB, yielding after each: there a cancellation is seen.
    Task<storage::Copied> copy(std::string from, std::string to, storage::CopyOptions options) override;
    // One append is one change, as are start_over and seal.
    Task<std::unique_ptr<storage::GrowingFile>> grow(std::string path, storage::GrowOptions options) override;
    Task<storage::Space> space(std::string path) override;
    // There are no symbolic links but those that link() made.
    Task<std::string> make(std::function<base::Result<std::string>()> work) override;
    Task<std::string> resolve(std::string path) override;
    void link(const std::string& path, std::string target) { links_[path] = std::move(target); }

private:
    struct UnderWay {
        std::function<void()> whole;
        std::function<void(base::Random&)> half;  // empty: it is done at once
    };
    class Change;
    class Growing;
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> turn();
    [[nodiscard]] base::Result<void> rename_now(const std::string& from, const std::string& to);
    [[nodiscard]] base::Result<void> remove_now(const std::string& path);
    [[nodiscard]] base::Result<void> make_directories_now(const std::string& path, unsigned mode);
    [[nodiscard]] base::Result<void> allowed(std::string_view path) const;
    [[nodiscard]] base::Result<void> change(std::string_view path);

    std::map<std::string, Node> nodes_;
    [[nodiscard]] std::string mount_of(const std::string& path) const;  // empty: the root's
    [[nodiscard]] storage::Space space_at(const std::string& path) const;
    std::map<std::string, std::string> links_;
    std::uint64_t capacity_ = 1ULL << 40;
    std::map<std::string, std::uint64_t> mounts_;  // bytes, by directory with a slash
    unsigned changes_ = 0;
    Countdown failing_;
    base::Error fail_with_;
    std::string bad_part_;
    base::Error bad_error_;
    std::list<UnderWay> under_way_;
    bool off_ = false;
};

}  // namespace ghost::fakes
