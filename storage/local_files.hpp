// Files on the machine's file systems, through two threads named "disk", and two named "copy" for what may take long.
#pragma once

#include "storage/files.hpp"
#include "storage/worker_pool.hpp"

namespace ghost::storage {

// Calls still waiting when it is destroyed are finished first. Destroy it before the loop.
class LocalFiles final : public Files {
public:
    LocalFiles() : pool_("disk", 2), copies_("copy", 2) {}

    Task<std::optional<FileInfo>> stat(std::string path) override;
    Task<std::string> read(std::string path, std::size_t max_bytes) override;
    Task<std::string> read_head(std::string path, std::size_t bytes) override;
    Task<std::string> read_tail(std::string path, std::size_t bytes) override;
    Task<void> write(std::string path, std::string bytes, unsigned mode) override;
    Task<void> remove(std::string path) override;  // a file, a link or an empty directory
    Task<void> rename(std::string from, std::string to) override;
    Task<void> make_directories(std::string path, unsigned mode) override;
    Task<std::vector<std::string>> list(std::string directory) override;
    Task<Copied> copy(std::string from, std::string to, CopyOptions options) override;
    Task<std::unique_ptr<GrowingFile>> grow(std::string path, GrowOptions options) override;
    Task<Space> space(std::string path) override;
    Task<std::string> make(std::function<base::Result<std::string>()> work) override;
    Task<std::string> resolve(std::string path) override;

private:
    WorkerPool pool_;
    WorkerPool copies_;
};

}  // namespace ghost::storage
