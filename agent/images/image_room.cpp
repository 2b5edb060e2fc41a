// Room in the cache: its budget, the owner's reserve, and what goes when they
// are short.
#include "agent/images/image_service.hpp"
#include "base/cancelled.hpp"
#include "base/shielded.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr int eviction_rounds = 3;

double gib(std::uint64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(1ULL << 30); }

// How much is missing, as the facts of a full disk tell; 0: they don't.
std::uint64_t missing(const base::Error& error) {
    const auto number = [&error](std::string_view fact) -> std::uint64_t {
        const auto* const amounts = error.facts.if_contains(fact);
        const auto* const bytes =
            amounts != nullptr && amounts->is_object() ? amounts->get_object().if_contains("disk_bytes") : nullptr;
        boost::json::error_code fault;
        const auto value = bytes != nullptr ? bytes->to_number<std::uint64_t>(fault) : 0;
        return fault ? 0 : value;
    };
    const auto needed = number("needed");
    const auto free = number("free");
    return needed > free ? needed - free : 0;
}

}  // namespace

// What `name` is about to write and what others were promised count as written.
std::uint64_t ImageService::over_budget(const storage::ImageCache::Content& content, std::string_view name,
                                        std::uint64_t bytes) const {
    if (rules_.cache_max == 0) return 0;
    auto sum = bytes;
    for (const auto& blob : content.blobs) sum += blob.bytes;
    for (const auto& part : content.parts)
        if (!parts_in_use_.contains(part.work_name)) sum += part.bytes;
    const auto is_blob = [&content](const std::string& digest) {
        return std::ranges::find(content.blobs, digest, &storage::ImageCache::Content::File::digest) !=
               content.blobs.end();
    };
    for (const auto& [holder, promised] : promised_) {
        const auto* image = find(holder);
        // What came to its place counts as what it is.
        const bool came = image != nullptr && is_blob(image->next ? image->next->digest : image->digest) &&
                          (image->next || image->state == ImageState::downloading);
        if (holder != name && !came) sum += promised;
    }
    return sum > rules_.cache_max ? sum - rules_.cache_max : 0;
}

base::Error ImageService::cache_is_full(std::uint64_t bytes, std::uint64_t over) const {
    const auto free = bytes > over ? bytes - over : 0;
    base::Error error{
        base::Errc::insufficient_storage,
        fmt::format("the image needs {:.1f} GiB, and of the {:.1f} GiB that the cache may have (images.cache_max) "
                    "{:.1f} GiB can be freed or are free: delete images, or raise it",
                    gib(bytes), gib(rules_.cache_max), gib(free))};
    base::add_disk_facts(error, bytes, free);
    return error;
}

ImageService::Done ImageService::make_room(std::string name, std::uint64_t bytes) {
    if (rules_.cache_max != 0 && bytes > rules_.cache_max)
        co_return base::fail(cache_is_full(bytes, bytes - rules_.cache_max));
    const auto turn = co_await room_turns_.take();
    if (!turn) co_return base::fail(base::Errc::cancelled);
    co_return co_await make_room_now(std::move(name), bytes);
}

ImageService::Done ImageService::make_room_now(std::string name, std::uint64_t bytes) {
    for (int round = 1;; ++round) {
        const auto content = co_await p_.cache.content();
        if (!content) co_return base::fail(content.error());
        // What of it is on disk already isn't asked for again.
        std::uint64_t here = 0;
        if (const auto own = own_part_.find(name); own != own_part_.end())
            for (const auto& part : content->parts)
                if (part.work_name == own->second) here = std::min(part.bytes, bytes);
        const auto over = over_budget(*content, name, bytes);
        base::Result<void> held;
        if (over == 0 && room) held = co_await room(name, bytes - here);
        if (over == 0 && held) {
            promised_[name] = bytes;
            co_return base::Result<void>{};
        }
        const auto short_of = over != 0 ? over : missing(held.error());
        auto full = over != 0 ? cache_is_full(bytes, over) : std::move(held).error();
        if (round > eviction_rounds || short_of == 0) co_return base::fail(std::move(full));
        // Right after a start.
        if (domains_known) co_await domains_known(domains_patience);
        auto candidates = co_await evictable();
        if (!candidates) {
            full.detail += fmt::format("; nothing is evicted meanwhile: {}", candidates.error().detail);
            co_return base::fail(std::move(full));
        }
        const auto victims = choose_evictions(std::move(*candidates), short_of);
        if (victims.empty()) co_return base::fail(std::move(full));
        if (auto gone = co_await evict_all(victims); !gone) co_return gone;
        if (room_used) co_await room_used(name);
    }
}

ImageService::Done ImageService::evict_all(std::vector<Evictable> victims) {
    for (const auto& victim : victims)
        if (auto gone = co_await evict(victim); !gone) co_return gone;
    co_return base::Result<void>{};
}

asio::awaitable<base::Result<std::vector<std::string>>> ImageService::make_way(base::Error shortage, std::string keep,
                                                                               bool only_say) {
    const auto bytes = shortage.code == base::Errc::insufficient_storage ? missing(shortage) : 0;
    const bool helps = bytes != 0 && shares_the_disks_place && co_await shares_the_disks_place();
    if (!helps) co_return base::fail(std::move(shortage));
    const auto turn = co_await room_turns_.take();
    if (!turn) co_return base::fail(base::Errc::cancelled);
    auto candidates = co_await evictable();
    if (!candidates) co_return base::fail(std::move(shortage));
    if (const auto* kept = find(keep))
        std::erase_if(*candidates, [kept](const Evictable& e) { return e.digest == kept->digest && e.part.empty(); });
    const auto victims = choose_evictions(std::move(*candidates), bytes);
    if (victims.empty()) co_return base::fail(std::move(shortage));
    std::vector<std::string> would;
    would.reserve(victims.size());
    for (const auto& victim : victims) would.push_back(describe(victim));
    if (only_say) co_return would;
    if (auto gone = co_await evict_all(victims); !gone) co_return base::fail(std::move(gone).error());
    if (room_used) co_await room_used({});
    co_return would;
}

asio::awaitable<void> ImageService::trim() {
    const auto turn = co_await room_turns_.take();
    if (!turn) co_return;
    const auto content = co_await p_.cache.content();
    if (!content) co_return;
    const auto lacking = owner_lacks ? co_await owner_lacks() : 0;
    const auto wanted = std::max(over_budget(*content, {}, 0), lacking);
    if (wanted == 0) co_return;
    auto candidates = co_await evictable();
    if (!candidates) co_return;
    std::uint64_t all = 0;
    for (const auto& candidate : *candidates) all += candidate.bytes;
    const auto victims = choose_evictions(std::move(*candidates), std::min(wanted, all));
    if (victims.empty()) co_return;
    p_.log.info("the cache of images is cut back", {{"bytes", wanted}, {"files", victims.size()}});
    if (const auto gone = co_await evict_all(victims); !gone)
        p_.log.warn("the cache of images can't be cut back", {{"error", gone.error().detail}});
    if (room_used) co_await room_used({});
}

// Whether a VM is, or is about to be, made of the image of that name.
bool ImageService::is_awaited(std::string_view name) const {
    return std::ranges::any_of(p_.vms.all(), [name](const auto& entry) {
        const auto& vm = entry.second;
        return vm.phase == Phase::provisioning && vm.spec.image == name && vm.plan.image_digest.empty();
    });
}

// Whether what is left of a download may be that of somebody who hasn't come to it yet.
bool ImageService::parts_may_be_wanted() const {
    const auto has_none_yet = [this](const std::string& name) { return !own_part_.contains(name); };
    const bool image_waits = std::ranges::any_of(images_, [&](const auto& entry) {
        const auto& [name, image] = entry;
        const bool comes = image.state == ImageState::downloading || p_.operations.busy("image:" + name);
        return comes && has_none_yet(name);
    });
    return image_waits || std::ranges::any_of(p_.vms.all(), [&](const auto& entry) {
               const auto& vm = entry.second;
               return vm.phase == Phase::provisioning && vm.plan.image_digest.empty() && has_none_yet(vm.spec.image);
           });
}

// The names that point to the blob; nullopt: it must stay.
std::optional<std::vector<std::string>> ImageService::names_to_give_up(const std::string& digest) const {
    std::vector<std::string> names;
    if (dropping_.contains(digest)) return std::nullopt;
    for (const auto& [id, vm] : p_.vms.all())
        if (vm.plan.image_digest == digest) return std::nullopt;
    for (const auto& [name, image] : images_) {
        if (image.next && image.next->digest == digest) return std::nullopt;
        if (image.digest != digest) continue;
        const bool can_be_had_again = image.state == ImageState::available && !is_local(image.source);
        if (!can_be_had_again || is_awaited(name) || p_.operations.busy("image:" + name)) return std::nullopt;
        names.push_back(name);
    }
    return names;
}

// Whatever may stand on a blob is known, or it isn't touched.
asio::awaitable<base::Result<FilesInUse>> ImageService::all_files_in_use() const {
    auto used = files_in_use ? co_await files_in_use() : FilesInUse{};
    if (used && used->unknown)
        co_return base::fail(used->unknown->code,
                             fmt::format("what disks stand on isn't known: {}", used->unknown->detail));
    co_return used;
}

asio::awaitable<base::Result<std::vector<Evictable>>> ImageService::evictable() {
    const auto used = co_await all_files_in_use();
    if (!used) co_return base::fail(used.error());
    const auto content = co_await p_.cache.content();
    if (!content) co_return base::fail(content.error());
    std::vector<Evictable> all;
    const bool spare_parts = parts_may_be_wanted();
    for (const auto& part : content->parts)
        if (!parts_in_use_.contains(part.work_name) && !spare_parts)
            all.push_back({.part = part.work_name, .bytes = part.bytes, .last_used = part.at});
    for (const auto& blob : content->blobs) {
        const auto names = names_to_give_up(blob.digest);
        if (!names || used->contains(path_of(blob.digest, blob.format))) continue;
        Evictable one{.digest = blob.digest, .format = blob.format, .bytes = blob.bytes};
        for (const auto& name : *names) {
            const auto& image = images_.at(name);
            if (one.image.empty()) one.image = name;
            one.last_used = std::max({one.last_used, image.last_used_at, image.created_at});
        }
        all.push_back(std::move(one));
    }
    co_return all;
}

// To its end, also for a caller that goes away meanwhile.
ImageService::Done ImageService::evict(Evictable what) {
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    auto gone = co_await evict_now(std::move(what));
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return gone;
}

ImageService::Done ImageService::evict_now(Evictable what) {
    if (!what.part.empty()) {
        if (parts_in_use_.contains(what.part)) co_return base::Result<void>{};
        p_.log.info("what was left of a download is deleted", {{"bytes", what.bytes}});
        co_return co_await p_.cache.forget_fetch(what.part);
    }
    // A VM may have been made of it while others went.
    const auto names = names_to_give_up(what.digest);
    if (!names) co_return base::Result<void>{};
    std::vector<Image> given_up;
    storage::Changes changes;
    for (const auto& name : *names) {
        given_up.push_back(images_.at(name));
        changes.emplace_back(storage::EraseImage{name});
        p_.log.info("an image that nobody uses is evicted", {{"image", name}, {"bytes", what.bytes}});
    }
    dropping_.insert(what.digest);
    for (const auto& name : *names) erase(name);
    // Without its record first: after a crash a blob that nobody knows is cleaned up, a record without one misleads.
    auto done = changes.empty() ? base::Result<void>{} : co_await base::shielded(p_.store.commit(std::move(changes)));
    if (done) {
        done = co_await p_.cache.remove(what.digest, what.format);
        if (!done) left_over_.insert(what.digest);
    } else {
        for (auto& image : given_up) put(std::move(image));
    }
    if (done) {
        for (auto& [name, image] : images_) std::erase(image.older, what.digest);
        left_over_.erase(what.digest);
    }
    dropping_.erase(what.digest);
    dropped_.notify();
    co_return done;
}

ImageService::Begun ImageService::prune(base::Context context) {
    OperationRequest operation;
    operation.kind = "image.prune";
    operation.target = {"images", "images", "images"};
    operation.context = std::move(context);
    operation.result_href = "/v1/images";
    if (operation.context.dry_run) {
        const auto all = co_await evictable();
        if (!all) co_return base::fail(all.error());
        std::uint64_t bytes = 0;
        for (const auto& one : *all) {
            bytes += one.bytes;
            operation.would.push_back(describe(one));
        }
        operation.needs = {{"frees", boost::json::object{{"disk_bytes", bytes}}}};
        co_return p_.operations.preview(std::move(operation));
    }
    co_return co_await p_.operations.begin(std::move(operation),
                                           [this](OperationControl& control) { return run_prune(control); });
}

asio::awaitable<Outcome> ImageService::run_prune(OperationControl& control) {
    Outcome outcome;
    outcome.result = co_await control.begin_step("delete");
    if (!outcome.result) co_return outcome;
    const auto all = co_await evictable();
    if (!all) {
        outcome.result = base::fail(all.error());
        co_return outcome;
    }
    std::uint64_t done = 0;
    std::uint64_t total = 0;
    for (const auto& one : *all) total += one.bytes;
    for (const auto& one : *all) {
        if (control.stopping()) {
            outcome.result = base::fail(interrupted());
            break;
        }
        control.progress(done, total, "bytes");
        done += one.bytes;
        if (auto gone = co_await evict(one); !gone) outcome.result = std::move(gone);
    }
    control.progress(done, total, "bytes");
    co_return outcome;
}

bool ImageService::is_to_go(const std::string& digest) const {
    return left_over_.contains(digest) || std::ranges::any_of(images_, [&digest](const auto& entry) {
               return std::ranges::find(entry.second.older, digest) != entry.second.older.end();
           });
}

bool ImageService::vm_left(const std::string& digest) {
    if (digest.empty()) return false;
    const auto has_it = [&digest](const auto& entry) { return entry.second.digest == digest; };
    if (std::ranges::any_of(images_, has_it)) return false;
    left_over_.insert(digest);
    return true;
}

// Those that the name pointed at before; what VMs stand on stays, without a name.
asio::awaitable<void> ImageService::drop_older(Image image) {
    const auto all = co_await evictable();
    if (!all) co_return;
    for (const auto& one : *all) {
        const bool of_it = std::ranges::find(image.older, one.digest) != image.older.end();
        if (!of_it || !one.image.empty()) continue;
        if (const auto gone = co_await evict(one); !gone)
            p_.log.warn("an older blob can't be deleted", {{"image", image.name}, {"error", gone.error().detail}});
    }
}

// Downloads that nobody went on with for long, and blobs that names or VMs left which are gone. Others without a name
// are for the owner to judge: names may have been lost with a database.
asio::awaitable<void> ImageService::tidy() {
    const auto all = co_await evictable();
    if (!all) co_return;
    for (const auto& one : *all) {
        const bool old_part = !one.part.empty() && p_.clock.wall() - one.last_used > part_patience;
        const bool nameless = one.part.empty() && one.image.empty();
        if (!old_part && !(nameless && is_to_go(one.digest))) continue;
        if (const auto gone = co_await evict(one); !gone)
            p_.log.warn("what nobody needs can't be deleted",
                        {{"what", describe(one)}, {"error", gone.error().detail}});
    }
}

}  // namespace ghost::agent
