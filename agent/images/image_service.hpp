// The rules of images: names, where they may come from, who uses them, and what
// the cache keeps.
#pragma once

#include "agent/images/eviction.hpp"
#include "agent/images/image.hpp"
#include "agent/images/image_proof.hpp"
#include "agent/images/image_request.hpp"
#include "agent/images/shared_fetches.hpp"
#include "agent/operations/operation_service.hpp"
#include "agent/vm/disk_chains.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/context.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "base/turns.hpp"
#include "storage/image_cache.hpp"

#include <boost/asio/awaitable.hpp>

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

struct ImageParts {
    storage::ImageCache& cache;
    ImageProof& proof;
    storage::Files& files;
    storage::StateStore& store;
    OperationService& operations;
    VmIndex& vms;
    base::Clock& clock;
    base::Log& log;
};
struct ImageRules {
    std::vector<std::string> import_dirs;
    std::string architecture;
    std::uint64_t cache_max = 0;  // bytes, 0: no more than the disk has beyond its reserve
    Catalogue catalogue;
};

class ImageService {
public:
    ImageService(const boost::asio::any_io_executor& executor, ImageParts parts, ImageRules rules);

    void restore(const std::vector<storage::ImageRow>& rows);
    void use_catalogue(Catalogue catalogue) { rules_.catalogue = std::move(catalogue); }

    [[nodiscard]] const Image* find(std::string_view name) const;
    [[nodiscard]] const std::map<std::string, Image, std::less<>>& all() const noexcept { return images_; }
    [[nodiscard]] const Catalogue& catalogue() const noexcept { return rules_.catalogue; }
    [[nodiscard]] std::vector<std::string> used_by(const Image& image) const;
    [[nodiscard]] std::string path_of(const std::string& digest, const std::string& format) const {
        return p_.cache.path_of(digest, format);
    }
    // Of an operation that ends: that the record of an image which came to nothing goes, if it couldn't go before.
    void erase_lost_record(Outcome& outcome, const std::string& name);
    // Right before such rows are committed: names that are in use again keep theirs.
    void renew(storage::Changes& changes) const;
    // A VM was made from it: the row that remembers when.
    [[nodiscard]] std::optional<storage::ImageRow> used(std::string_view name);
    // A VM that stood on the blob is gone: the rows of the images that have it, which were in use until now.
    [[nodiscard]] std::vector<storage::ImageRow> used_until_now(std::string_view digest);

    // `file://` sources are for the Unix socket, and for everybody from the import directories: forbidden otherwise.
    // already_exists for a name in use. The rest as ImageCache says, by the operation.
    [[nodiscard]] boost::asio::awaitable<base::Result<OperationService::Ptr>> add(base::Context context,
                                                                                  AddImage request);
    // state_conflict while VMs use it (facts: used_by), or while it is fetched.
    [[nodiscard]] boost::asio::awaitable<base::Result<OperationService::Ptr>> remove(base::Context context,
                                                                                     std::string name);
    // Moves the name to what its source has now; VMs keep the blob they were made of. state_conflict for a local
    // image.
    [[nodiscard]] boost::asio::awaitable<base::Result<OperationService::Ptr>> refresh(base::Context context,
                                                                                      std::string name);
    // Frees what nobody refers to and can be had again: images that came over the web, blobs without a name, and what
    // is left of downloads.
    [[nodiscard]] boost::asio::awaitable<base::Result<OperationService::Ptr>> prune(base::Context context);
    // Ends an operation that a stop or a crash interrupted: what can be gone on with is.
    void recover(const Operation& operation);
    // Before that, with the operations restored: what a crash left that none of them owns.
    [[nodiscard]] boost::asio::awaitable<void> settle();

    // Whether provide() may bring it: it is here, on its way, or in the catalogue.
    [[nodiscard]] bool can_provide(std::string_view name) const;
    // Until the image is available: begins to fetch what the catalogue names, or waits with the others. Shows in the
    // operation how far it is. Errors: not_found, and those of the fetch.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> provide(OperationControl& control, std::string name);

    // Of a VM that doesn't fit: what is to go for it, in sentences, the longest unused first, but not the image `keep`;
    // gone, too, unless `only_say`. Errors: `shortage`, when it isn't the disk alone that is short, or when all that
    // may go isn't enough.
    [[nodiscard]] boost::asio::awaitable<base::Result<std::vector<std::string>>> make_way(base::Error shortage,
                                                                                          std::string keep,
                                                                                          bool only_say);
    // Brings the cache back within images.cache_max, and off the owner's share of the disk, as far as what nobody uses
    // goes.
    [[nodiscard]] boost::asio::awaitable<void> trim();
    // Takes away downloads that nobody went on with for long, and blobs that names or VMs left behind
    // which are gone.
    [[nodiscard]] boost::asio::awaitable<void> tidy();
    // A VM that stood on the blob is gone: nobody may need it any more, and tidy() looks. False: it can't be so.
    [[nodiscard]] bool vm_left(const std::string& digest);

    // Operations are about to be interrupted: what was fetched is kept for the next start.
    void close() noexcept { closing_ = true; }
    [[nodiscard]] boost::asio::awaitable<void> drain() { return fetches_.drain(); }
    [[nodiscard]] std::size_t fetching() const noexcept { return fetches_.size(); }

    // Whether so many bytes more may be written on behalf of the image `name`, kept for it until room_used(); empty:
    // whatever its disk has.
    std::function<boost::asio::awaitable<base::Result<void>>(std::string name, std::uint64_t bytes)> room;
    // What asked for room has ended.
    std::function<boost::asio::awaitable<void>(std::string name)> room_used;
    // All files that any domain's disks are or stand on. Errors, and `unknown` in it: it can't be told, so nothing may
    // go.
    std::function<boost::asio::awaitable<base::Result<FilesInUse>>()> files_in_use;
    // Until the domains have been read from the hypervisor, or the time is over.
    std::function<boost::asio::awaitable<void>(base::Duration limit)> domains_known;
    // Whether what the cache gives up is free for VMs' disks.
    std::function<boost::asio::awaitable<bool>()> shares_the_disks_place;
    // By how many bytes its file system falls short of what the owner keeps.
    std::function<boost::asio::awaitable<std::uint64_t>()> owner_lacks;
    // Told of each image that changes, comes or goes.
    std::function<void(const std::string& name)> on_change;

    static constexpr std::chrono::hours part_patience{24 * 7};  // how long a download that nobody goes on with is kept
    static constexpr std::chrono::minutes domains_patience{2};  // until what disks stand on is known after a start

private:
    using Begun = boost::asio::awaitable<base::Result<OperationService::Ptr>>;
    using Done = boost::asio::awaitable<base::Result<void>>;

    // The download of `name`, if it has one, isn't under way any more when this goes.
    struct PartHeld {
        ImageService& images;
        std::string name;
        PartHeld(ImageService& service, std::string of) : images(service), name(std::move(of)) {}
        ~PartHeld() { images.leave_part(name); }
        PartHeld(const PartHeld&) = delete;
        PartHeld& operator=(const PartHeld&) = delete;
    };

    void put(Image image);
    void erase(const std::string& name);
    [[nodiscard]] Image new_image(const AddImage& request) const;

    // image_service.cpp
    [[nodiscard]] boost::asio::awaitable<base::Result<std::string>> allowed_path(const base::Context& context,
                                                                                 const std::string& source) const;
    Begun preview_add(OperationRequest operation, ImageSource source) const;
    boost::asio::awaitable<Outcome> run_add(OperationControl& control, AddImage request, std::string path);
    Done await_fetch(OperationControl& control, AddImage request, std::string path);
    boost::asio::awaitable<Outcome> drop(OperationControl& control, std::string name);
    boost::asio::awaitable<Outcome> after_domains(OperationControl& control,
                                                  std::function<boost::asio::awaitable<Outcome>()> work);
    Done remove_blob(std::string digest, std::string format);
    [[nodiscard]] bool last_name_of_blob(const Image& image) const;
    [[nodiscard]] base::Result<void> removable(const Image& image) const;
    Done nobody_stands_on(const Image& image) const;

    // image_fetch.cpp
    Done wait_for(OperationControl& control, std::string name, bool& wanted);
    void want(const std::string& name) { ++wanted_[name]; }
    boost::asio::awaitable<void> let_go(std::string name);
    boost::asio::awaitable<void> forget_unless_wanted(std::string name);
    boost::asio::awaitable<void> remove_if_nobodys(ImageBlob blob);
    void leave_part(const std::string& name);
    [[nodiscard]] bool is_being_deleted(const std::string& name) const;
    Done fetch_part(std::string name, std::string part, std::vector<std::string> urls, storage::TakeIn what,
                    storage::OnProgress report);
    Done fetch(std::string name, AddImage request, std::string path, storage::OnProgress report);
    Done fetch_now(std::string name, AddImage request, std::string path, storage::OnProgress report);
    Done fetch_blob(std::string name, ImageSource source, Proof proof, storage::OnProgress report);
    [[nodiscard]] boost::asio::awaitable<bool> was_fetched(std::string name);
    [[nodiscard]] boost::asio::awaitable<std::optional<storage::Blob>> with_checksum(std::string checksum);
    Done announce(std::string name, storage::Blob blob, Proof proof);
    Done finish_fetch(std::string name);
    boost::asio::awaitable<void> finish_found(std::string name);
    boost::asio::awaitable<void> forget(std::string name);
    [[nodiscard]] storage::OnProgress shown_by(OperationControl& control, bool others_pass) const;

    // image_room.cpp
    Done make_room(std::string name, std::uint64_t bytes);
    Done make_room_now(std::string name, std::uint64_t bytes);
    Done evict_all(std::vector<Evictable> victims);
    [[nodiscard]] bool parts_may_be_wanted() const;
    [[nodiscard]] std::uint64_t over_budget(const storage::ImageCache::Content& content, std::string_view name,
                                            std::uint64_t bytes) const;
    [[nodiscard]] base::Error cache_is_full(std::uint64_t bytes, std::uint64_t over) const;
    [[nodiscard]] bool is_awaited(std::string_view name) const;
    [[nodiscard]] boost::asio::awaitable<base::Result<FilesInUse>> all_files_in_use() const;
    [[nodiscard]] std::optional<std::vector<std::string>> names_to_give_up(const std::string& digest) const;
    [[nodiscard]] boost::asio::awaitable<base::Result<std::vector<Evictable>>> evictable();
    Done evict(Evictable what);
    Done evict_now(Evictable what);
    [[nodiscard]] bool is_to_go(const std::string& digest) const;
    boost::asio::awaitable<Outcome> run_prune(OperationControl& control);
    boost::asio::awaitable<void> drop_older(Image image);

    // image_refresh.cpp
    boost::asio::awaitable<Outcome> run_refresh(OperationControl& control, std::string name);
    Done fetch_newer(std::string name, ImageSource source, bool unproven, storage::OnProgress report);
    Done fetch_if_newer(std::string name, ImageSource source, bool unproven, storage::OnProgress report);
    Done move_name(std::string name);
    void give_up_next(Image& image);

    ImageParts p_;
    ImageRules rules_;
    std::map<std::string, Image, std::less<>> images_;
    SharedFetches fetches_;
    std::map<std::string, unsigned> wanted_;  // names, by how many operations see to it that they are fetched
    std::set<std::string> recorded_;          // names that the database may have a row of
    std::set<std::string> dropping_;          // digests whose blobs are being deleted
    std::set<std::string> left_over_;         // digests whose names are gone, and whose blobs are to go
    base::Notifier dropped_;
    base::Notifier changed_;
    std::set<std::string> parts_in_use_;             // work names of downloads under way
    std::map<std::string, unsigned> parts_awaited_;  // by how many more that want the same
    base::Notifier part_left_;                       // one of them isn't in use any more
    std::map<std::string, std::string> own_part_;    // by image
    std::map<std::string, std::uint64_t> promised_;  // bytes of the cache, by the image that is about to fill them
    base::Turns room_turns_;                         // of making room: what one gives up, another would count on
    bool closing_ = false;
};

}  // namespace ghost::agent
