// A file of MemoryFiles that grows.
#include "fakes/memory_change.hpp"
#include "fakes/memory_files.hpp"
#include "storage/digest.hpp"

#include <new>
#include <utility>

namespace ghost::fakes {

using storage::GrowingFile;

class MemoryFiles::Growing final : public GrowingFile {
public:
    Growing(MemoryFiles& files, std::string path, bool sha512)
        : files_(files), path_(std::move(path)), sha512_(sha512), size_(files_.nodes_.at(path_).bytes.size()) {}

    std::uint64_t size() const noexcept override { return size_; }

    Task<void> append(std::string bytes) override {
        if (files_.throw_in_append) throw std::bad_alloc{};
        const Change change{files_,
                            {[&] { static_cast<void>(store(held() + bytes)); },
                             [&](base::Random& random) {
                                 files_.nodes_[path_].bytes =
                                     held() + bytes.substr(0, random.next() % (bytes.size() + 1));
                             }}};
        if (auto on = co_await files_.turn(); !on) co_return on;
        auto done = store(held() + bytes);
        if (done) size_ += bytes.size();
        co_return done;
    }

    Task<void> start_over() override {
        const Change change{files_, {[&] { static_cast<void>(store({})); }, {}}};
        if (auto on = co_await files_.turn(); !on) co_return on;
        auto done = store({});
        if (done) size_ = 0;
        co_return done;
    }

    Task<storage::Copied> seal(unsigned mode) override {
        if (auto on = co_await files_.turn(); !on) co_return base::fail(std::move(on).error());
        if (auto may = files_.change(path_); !may) co_return base::fail(std::move(may).error());
        files_.nodes_[path_] = {held(), mode, false};
        storage::Digests digests{sha512_};
        digests.add(held());
        storage::Copied copied{size_, digests.sha256.hex(), {}, false};
        if (digests.sha512) copied.sha512 = digests.sha512->hex();
        co_return copied;
    }

private:
    // Deleted files can be written to; nobody sees it.
    [[nodiscard]] std::string held() const {
        const auto* const node = files_.find(path_);
        return node != nullptr ? node->bytes.substr(0, size_) : std::string{};
    }
    [[nodiscard]] base::Result<void> store(std::string bytes) { return files_.store(path_, std::move(bytes), 0600); }

    MemoryFiles& files_;
    std::string path_;
    bool sha512_;
    std::uint64_t size_;
};

storage::Files::Task<std::unique_ptr<GrowingFile>> MemoryFiles::grow(std::string path, storage::GrowOptions options) {
    if (auto on = co_await turn(); !on) co_return base::fail(std::move(on).error());
    if (auto may = allowed(path); !may) co_return base::fail(std::move(may).error());
    if (!exists(path))
        if (auto made = store(path, {}, 0600); !made) co_return base::fail(std::move(made).error());
    const auto size = find(path)->bytes.size();
    if (options.progress && size > 0) options.progress(size, size);
    co_return std::make_unique<Growing>(*this, std::move(path), options.sha512);
}

}  // namespace ghost::fakes
