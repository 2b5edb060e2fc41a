// The rules of images: names, where they may come from, who uses them.
#pragma once

#include "agent/images/image.hpp"
#include "agent/operations/operation_service.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/context.hpp"
#include "base/notifier.hpp"
#include "storage/image_cache.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/value.hpp>

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace ghost::agent {

struct AddImage {
    std::string name;  // empty: from the source
    std::string source;
    std::optional<std::string> checksum;
    std::optional<std::string> format;
};
// Errors: validation_failed with every fault.
[[nodiscard]] base::Result<AddImage> read_add_image(const boost::json::value& body);

class ImageService {
public:
    ImageService(const boost::asio::any_io_executor& executor, storage::ImageCache& cache, storage::Files& files,
                 storage::StateStore& store, OperationService& operations, VmIndex& vms, base::Clock& clock,
                 std::vector<std::string> import_dirs, std::string architecture);

    void restore(const std::vector<storage::ImageRow>& rows, base::Log& log);

    [[nodiscard]] const Image* find(std::string_view name) const;
    [[nodiscard]] const std::map<std::string, Image, std::less<>>& all() const noexcept { return images_; }
    [[nodiscard]] std::vector<std::string> used_by(const Image& image) const;
    [[nodiscard]] std::string path_of(const std::string& digest, const std::string& format) const {
        return cache_.path_of(digest, format);
    }
    // A VM was made from it: the row that remembers when.
    [[nodiscard]] std::optional<storage::ImageRow> used(std::string_view name);

    // `file://` sources are for the Unix socket, and for everybody from the import directories: forbidden otherwise.
    // already_exists for a name in use. The rest as ImageCache::import says, by the operation.
    [[nodiscard]] boost::asio::awaitable<base::Result<OperationService::Ptr>> add(base::Context context,
                                                                                  AddImage request);
    // state_conflict while VMs use it (facts: used_by).
    [[nodiscard]] boost::asio::awaitable<base::Result<OperationService::Ptr>> remove(base::Context context,
                                                                                     std::string name);
    // Ends an operation that a stop or a crash interrupted: an add is undone, a delete finished.
    void recover(const Operation& operation);

    // Whether so many bytes more fit into the cache, kept for the image `name` until room_used(); empty: whatever its
    // disk has.
    std::function<base::Result<void>(const std::string& name, std::uint64_t bytes)> room;
    // Told of each image that changes, comes or goes.
    std::function<void(const std::string& name)> on_change;
    // The import that asked for room has ended.
    std::function<boost::asio::awaitable<void>(std::string name)> room_used;

private:
    void put(Image image);
    void erase(const std::string& name);
    boost::asio::awaitable<base::Result<OperationService::Ptr>> preview_add(OperationRequest operation,
                                                                            std::string path) const;
    boost::asio::awaitable<Outcome> import(OperationControl& control, Image image, storage::ImportRequest request);
    [[nodiscard]] Outcome undone(Outcome outcome, const std::string& name);
    boost::asio::awaitable<base::Result<void>> announce(std::string name, storage::Blob blob);
    boost::asio::awaitable<Outcome> drop(OperationControl& control, Image image);
    boost::asio::awaitable<Outcome> finish_drop(OperationControl& control, std::string name);
    boost::asio::awaitable<Outcome> undo_import(std::string name);
    boost::asio::awaitable<base::Result<void>> remove_blob(Image image);
    boost::asio::awaitable<base::Result<storage::Blob>> fetch_blob(
        storage::ImportRequest request, std::function<void(const storage::ImportProgress&)> progress);
    [[nodiscard]] bool last_name_of_blob(const Image& image) const;
    [[nodiscard]] base::Result<void> removable(const Image& image) const;
    boost::asio::awaitable<base::Result<std::string>> allowed_path(const base::Context& context,
                                                                   const std::string& source) const;

    storage::ImageCache& cache_;
    storage::Files& files_;
    storage::StateStore& store_;
    OperationService& operations_;
    VmIndex& vms_;
    base::Clock& clock_;
    std::vector<std::string> import_dirs_;
    std::string architecture_;
    std::map<std::string, Image, std::less<>> images_;
    std::set<std::string> dropping_;  // digests whose blobs are being deleted
    base::Notifier dropped_;
};

}  // namespace ghost::agent
