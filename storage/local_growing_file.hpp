// storage::GrowingFile on the machine's file systems.
#pragma once

#include "base/descriptor.hpp"
#include "storage/digest.hpp"
#include "storage/files.hpp"
#include "storage/worker_pool.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace ghost::storage {

// Blocking; used by one disk thread at a time.
class GrowingBytes {
public:
    using Report = std::function<void(std::uint64_t done, std::uint64_t total)>;

    // Hashes what is there, looking at `stop` between chunks.
    [[nodiscard]] static base::Result<GrowingBytes> open(const std::string& path, bool sha512, const Report& report,
                                                         const std::atomic<bool>& stop);
    [[nodiscard]] base::Result<void> append(std::string_view bytes);
    [[nodiscard]] base::Result<void> start_over();
    [[nodiscard]] base::Result<Copied> seal(unsigned mode);
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

private:
    GrowingBytes(std::string path, base::Descriptor file, bool sha512)
        : path_(std::move(path)), file_(std::move(file)), sha512_(sha512), digests_(sha512) {}
    [[nodiscard]] base::Result<void> hash_what_is_there(const Report& report, const std::atomic<bool>& stop);
    void write_back();

    std::string path_;
    base::Descriptor file_;
    bool sha512_;
    Digests digests_;
    std::uint64_t size_ = 0;
    std::uint64_t written_back_ = 0;  // the disk was asked to begin with what is below
};

class LocalGrowingFile final : public GrowingFile {
public:
    LocalGrowingFile(WorkerPool& pool, GrowingBytes bytes) : pool_(pool), bytes_(std::move(bytes)) {}

    std::uint64_t size() const noexcept override { return bytes_.size(); }
    Task<void> append(std::string bytes) override;
    Task<void> start_over() override;
    Task<Copied> seal(unsigned mode) override;

private:
    WorkerPool& pool_;
    GrowingBytes bytes_;
};

}  // namespace ghost::storage
