// How images come: fetched or copied once for all who wait, proven, recorded,
// and gone on with after a crash.
#include "agent/images/image_service.hpp"
#include "base/cancelled.hpp"
#include "base/shielded.hpp"
#include "net/digest.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::size_t part_digits = 32;

base::Error name_is_gone(const std::string& name) {
    return {base::Errc::internal, fmt::format("the name {} went while its image was fetched", name)};
}

// What is left of a download is gone on with by who wants the same bytes from the same place.
std::string part_name(const ImageSource& source) {
    return net::sha256_hex(source.urls.front() + "\n" + source.checksum.value_or("")).substr(0, part_digits);
}

}  // namespace

bool ImageService::can_provide(std::string_view name) const {
    return images_.contains(name) || rules_.catalogue.contains(name);
}

storage::OnProgress ImageService::shown_by(OperationControl& control, bool others_pass) const {
    return [&control, others_pass, phase = std::string{}](const storage::ImportProgress& p) mutable {
        if (p.phase != phase) {
            control.phase(phase = p.phase);
            if (others_pass) control.let_others_pass();
        }
        control.progress(p.done, p.total, "bytes");
    };
}

ImageService::Done ImageService::provide(OperationControl& control, std::string name) {
    co_await asio::this_coro::throw_if_cancelled(false);
    bool wanted = false;
    auto provided = co_await wait_for(control, name, wanted);
    if (wanted)
        co_await let_go(name);
    else if (!provided)
        co_await forget_unless_wanted(name);
    co_return provided;
}

ImageService::Done ImageService::wait_for(OperationControl& control, std::string name, bool& wanted) {
    for (;;) {
        const auto* image = find(name);
        if (image != nullptr && image->state == ImageState::available) co_return base::Result<void>{};
        if (co_await base::is_cancelled()) co_return base::fail(base::Errc::cancelled);
        if (image == nullptr && !rules_.catalogue.contains(name))
            co_return base::fail(base::Errc::not_found, fmt::format("there is no image named {} any more", name));
        const AddImage request{.name = name, .source = name};
        if (image == nullptr) put(new_image(request));
        control.let_others_pass();
        const bool by_name = find(name)->source == name;
        if (!by_name && !fetches_.under_way(name)) {
            // Its own operation hasn't come to it yet.
            co_await changed_.wait();
            continue;
        }
        if (by_name && !wanted) want(name);
        wanted = wanted || by_name;
        auto work = [this, name, request](storage::OnProgress report) {
            return fetch(name, request, {}, std::move(report));
        };
        auto fetched = co_await fetches_.join(name, std::move(work), shown_by(control, true));
        if (!fetched) co_return fetched;
    }
}

// An operation that saw to it that the name is fetched has come to its end.
asio::awaitable<void> ImageService::let_go(std::string name) {
    const auto it = wanted_.find(name);
    if (it != wanted_.end() && --it->second == 0) wanted_.erase(it);
    co_await forget_unless_wanted(std::move(name));
}

// A name that came to nothing goes with the last that wanted it. Cut off by the agent's end, it is gone on with at the
// next start.
asio::awaitable<void> ImageService::forget_unless_wanted(std::string name) {
    const auto* image = find(name);
    const bool came_to_nothing = image != nullptr && image->state == ImageState::downloading;
    if (closing_ || !came_to_nothing || wanted_.contains(name) || fetches_.under_way(name)) co_return;
    co_await forget(std::move(name));
}

void ImageService::leave_part(const std::string& name) {
    const auto own = own_part_.find(name);
    if (own == own_part_.end()) return;
    parts_in_use_.erase(own->second);
    own_part_.erase(own);
    part_left_.notify();
}

ImageService::Done ImageService::fetch(std::string name, AddImage request, std::string path,
                                       storage::OnProgress report) {
    co_await asio::this_coro::throw_if_cancelled(false);
    const PartHeld held{*this, name};
    changed_.notify();  // those who waited for its beginning see how far it is
    auto done = co_await fetch_now(name, std::move(request), std::move(path), std::move(report));
    promised_.erase(name);
    if (room_used) co_await room_used(name);
    co_return done;
}

ImageService::Done ImageService::fetch_now(std::string name, AddImage request, std::string path,
                                           storage::OnProgress report) {
    if (co_await was_fetched(name)) co_return co_await finish_fetch(name);
    ImageSource source{.path = path, .checksum = request.checksum, .format = request.format};
    if (path.empty()) {
        auto found = find_source(request, rules_.catalogue);
        if (!found) co_return base::fail(std::move(found).error());
        source = std::move(*found);
    }
    report({"proof", 0, 0});
    auto proof = co_await p_.proof.of(source, name);
    if (!proof) co_return base::fail(std::move(proof).error());
    if (proof->verified == "none" && !request.allow_unverified)
        co_return base::fail(base::Errc::unverified_image, "nothing proves the image");
    source.checksum = proof->checksum;
    auto fetched = co_await fetch_blob(name, std::move(source), std::move(*proof), std::move(report));
    if (!fetched) co_return fetched;
    co_return co_await finish_fetch(name);
}

// Its record was written, and its blob brought to its place, by an agent that died right then.
asio::awaitable<bool> ImageService::was_fetched(std::string name) {
    const auto* image = find(name);
    if (image == nullptr || image->digest.empty()) co_return false;
    const auto size = image->size;
    const auto file = co_await p_.files.stat(path_of(image->digest, image->format));
    co_return file && file->has_value() && (*file)->regular && (*file)->size == size;
}

// Until the blob is in its place and announced under `name`.
ImageService::Done ImageService::fetch_blob(std::string name, ImageSource source, Proof proof,
                                            storage::OnProgress report) {
    const auto part = source.path.empty() ? part_name(source) : std::string{};
    for (;;) {
        if (proof.checksum)
            if (auto same = co_await with_checksum(*proof.checksum))
                co_return co_await announce(name, std::move(*same), std::move(proof));
        if (co_await base::is_cancelled()) co_return base::fail(base::Errc::cancelled);
        if (!parts_in_use_.contains(part)) break;
        report({"waiting for the same download under another name", 0, 0});
        ++parts_awaited_[part];
        co_await part_left_.wait();
        if (--parts_awaited_[part] == 0) parts_awaited_.erase(part);
    }
    storage::TakeIn what{source.format, source.checksum, part.empty() ? name : part};
    what.room = [this, name](std::uint64_t bytes) { return make_room(name, bytes); };
    what.announce = [this, name, proof](storage::Blob blob) { return announce(name, std::move(blob), proof); };
    if (!part.empty())
        co_return co_await fetch_part(name, part, std::move(source.urls), std::move(what), std::move(report));
    const auto blob = co_await p_.cache.import(std::move(source.path), std::move(what), std::move(report));
    co_return blob ? base::Result<void>{} : base::fail(blob.error());
}

ImageService::Done ImageService::fetch_part(std::string name, std::string part, std::vector<std::string> urls,
                                            storage::TakeIn what, storage::OnProgress report) {
    parts_in_use_.insert(part);
    own_part_[name] = part;  // until it is known by its name: whoever wants the same finds it then
    const auto blob = co_await p_.cache.fetch(std::move(urls), std::move(what), std::move(report));
    // Nobody wants it any more, and nobody shall have to clean up.
    if (!blob && blob.error().code == base::Errc::cancelled && !closing_ && !parts_awaited_.contains(part))
        (void)co_await p_.cache.forget_fetch(part);
    co_return blob ? base::Result<void>{} : base::fail(blob.error());
}

bool ImageService::is_being_deleted(const std::string& name) const {
    const auto running = p_.operations.running_on("image:" + name);
    return running && running->kind == "image.delete";
}

// A blob that is here already. One that is being deleted, or whose file isn't there, is none.
asio::awaitable<std::optional<storage::Blob>> ImageService::with_checksum(std::string checksum) {
    const auto fits = [&](const Image& image) {
        return image.state == ImageState::available && !dropping_.contains(image.digest) &&
               !is_being_deleted(image.name) && (image.digest == checksum || image.checksum == checksum);
    };
    std::vector<std::string> names;
    for (const auto& [name, image] : images_)
        if (fits(image)) names.push_back(name);
    for (const auto& name : names) {
        const auto* image = find(name);
        if (image == nullptr || !fits(*image)) continue;
        storage::Blob blob{image->digest, {}, image->format, image->size, image->virtual_size};
        const auto file = co_await p_.files.stat(path_of(blob.digest, blob.format));
        image = find(name);
        if (file && file->has_value() && (*file)->size == blob.size && image != nullptr && fits(*image) &&
            image->digest == blob.digest)
            co_return blob;
    }
    co_return std::nullopt;
}

// Its record comes before it: after a crash the record tells which blob nobody else has, and with a second name the
// blob outlives a delete of the first.
ImageService::Done ImageService::announce(std::string name, storage::Blob blob, Proof proof) {
    while (dropping_.contains(blob.digest)) co_await dropped_.wait();
    left_over_.erase(blob.digest);
    const auto it = images_.find(name);
    assert(it != images_.end() && "its name is taken while it is fetched");
    if (it == images_.end()) co_return base::fail(name_is_gone(name));
    auto& image = it->second;
    ImageBlob known{std::move(blob.digest), std::move(blob.format), blob.size,
                    blob.virtual_size,      proof.verified,         proof.checksum.value_or("")};
    if (image.state == ImageState::available)
        image.next = std::move(known);
    else
        static_cast<ImageBlob&>(image) = std::move(known);
    storage::Changes changes;
    changes.emplace_back(storage::ImageRow{name, to_document(image)});
    recorded_.insert(name);
    co_return co_await base::shielded(p_.store.commit(std::move(changes)));
}

ImageService::Done ImageService::finish_fetch(std::string name) {
    const auto* found = find(name);
    assert(found != nullptr && "its name is taken while it is fetched");
    if (found == nullptr) co_return base::fail(name_is_gone(name));
    auto image = *found;
    image.state = ImageState::available;
    image.refreshed_at = p_.clock.wall();
    storage::Changes changes;
    changes.emplace_back(storage::ImageRow{name, to_document(image)});
    auto kept = co_await base::shielded(p_.store.commit(std::move(changes)));
    if (kept) put(std::move(image));
    co_return kept;
}

// Nothing of it is left behind.
asio::awaitable<void> ImageService::forget(std::string name) {
    const auto* found = find(name);
    if (found == nullptr) co_return;
    const ImageBlob blob = static_cast<const ImageBlob&>(*found);
    erase(name);
    if (!blob.digest.empty()) co_await remove_if_nobodys(blob);
    if (images_.contains(name) || !recorded_.contains(name)) co_return;
    storage::Changes changes;
    changes.emplace_back(storage::EraseImage{name});
    const auto done = co_await base::shielded(p_.store.commit(std::move(changes)));
    // Otherwise the operations that waited for it take it along.
    if (done && !images_.contains(name)) recorded_.erase(name);
}

// A blob that had been here before may be somebody's all the same.
asio::awaitable<void> ImageService::remove_if_nobodys(ImageBlob blob) {
    const auto names = names_to_give_up(blob.digest);
    if (!names || !names->empty()) co_return;
    const auto path = path_of(blob.digest, blob.format);
    const auto file = co_await p_.files.stat(path);
    if (file && !file->has_value()) co_return;
    const auto used = co_await all_files_in_use();
    auto gone = used ? base::Result<void>{} : base::fail(used.error());
    if (used && used->contains(path)) co_return;
    const auto still = names_to_give_up(blob.digest);
    if (gone && still && still->empty()) gone = co_await remove_blob(blob.digest, blob.format);
    if (!gone) p_.log.warn("a blob without a name stays", {{"digest", blob.digest}, {"error", gone.error().detail}});
}

// One that is here whole. A record that can't be written now is found at the next start as it is.
asio::awaitable<void> ImageService::finish_found(std::string name) {
    if (co_await finish_fetch(name)) co_return;
    auto image = images_.at(name);
    image.state = ImageState::available;
    put(std::move(image));
}

// Before anything is gone on with: what a crash left half done and no operation owns.
asio::awaitable<void> ImageService::settle() {
    std::vector<std::string> downloading;
    std::vector<std::string> refreshed;
    for (const auto& [name, image] : images_) {
        if (image.state == ImageState::downloading) downloading.push_back(name);
        if (image.next && !p_.operations.busy("image:" + name)) refreshed.push_back(name);
    }
    for (const auto& name : downloading) {
        if (co_await was_fetched(name))
            co_await finish_found(name);
        else if (!p_.operations.busy("image:" + name))
            co_await forget(name);
    }
    for (const auto& name : refreshed) give_up_next(images_.at(name));
}

}  // namespace ghost::agent
