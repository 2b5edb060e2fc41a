// How images come: fetched or copied once for all who wait, proven, recorded,
// and gone on with after a crash.
#include "agent/digest.hpp"
#include "agent/images/image_service.hpp"
#include "base/shielded.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::size_t part_digits = 32;

// What is left of a download is gone on with by who wants the same bytes from the same place.
std::string part_name(const ImageSource& source) {
    return sha256_hex(source.urls.front() + "\n" + source.checksum.value_or("")).substr(0, part_digits);
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
    for (;;) {
        const auto* image = find(name);
        if (image != nullptr && image->state == ImageState::available) co_return base::Result<void>{};
        if ((co_await asio::this_coro::cancellation_state).cancelled() != asio::cancellation_type::none)
            co_return base::fail(base::Errc::cancelled);
        const bool in_catalogue = rules_.catalogue.contains(name);
        if (image == nullptr && !in_catalogue)
            co_return base::fail(base::Errc::not_found, fmt::format("there is no image named {} any more", name));
        const AddImage request{.name = name, .source = name};
        if (image == nullptr) put(new_image(request));
        if (!fetches_.under_way(name) && (image != nullptr && image->source != name)) {
            // Its own operation hasn't come to it yet.
            control.let_others_pass();
            co_await changed_.wait();
            continue;
        }
        control.let_others_pass();
        auto work = [this, name, request](storage::OnProgress report) {
            return fetch(name, request, {}, std::move(report));
        };
        auto fetched = co_await fetches_.join(name, std::move(work), shown_by(control, true));
        if (!fetched) co_return fetched;
    }
}

ImageService::Done ImageService::fetch(std::string name, AddImage request, std::string path,
                                       storage::OnProgress report) {
    co_await asio::this_coro::throw_if_cancelled(false);
    auto done = co_await fetch_now(name, std::move(request), std::move(path), std::move(report));
    // Cut off by the agent's end, it is gone on with at the next start.
    if (!done && !closing_) co_await forget(name);
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
        if (const auto* same = proof.checksum ? with_checksum(*proof.checksum) : nullptr) {
            const storage::Blob blob{same->digest, {}, same->format, same->size, same->virtual_size};
            co_return co_await announce(name, blob, std::move(proof));
        }
        if (!parts_in_use_.contains(part)) break;
        // The same is being fetched under another name.
        co_await part_left_.wait();
        if ((co_await asio::this_coro::cancellation_state).cancelled() != asio::cancellation_type::none)
            co_return base::fail(base::Errc::cancelled);
    }
    storage::TakeIn what{source.format, source.checksum, part.empty() ? name : part};
    what.room = [this, name](std::uint64_t bytes) { return make_room(name, bytes); };
    what.announce = [this, name, proof](storage::Blob blob) { return announce(name, std::move(blob), proof); };
    if (!part.empty()) {
        parts_in_use_.insert(part);
        own_part_[name] = part;
    }
    auto blob = part.empty() ? co_await p_.cache.import(std::move(source.path), std::move(what), std::move(report))
                             : co_await p_.cache.fetch(std::move(source.urls), std::move(what), std::move(report));
    // Nobody wants it any more, and nobody shall have to clean up.
    if (!blob && blob.error().code == base::Errc::cancelled && !closing_ && !part.empty())
        (void)co_await p_.cache.forget_fetch(part);
    parts_in_use_.erase(part);
    own_part_.erase(name);
    part_left_.notify();
    if (!blob) co_return base::fail(std::move(blob).error());
    co_return base::Result<void>{};
}

const Image* ImageService::with_checksum(const std::string& checksum) const {
    const auto it = std::ranges::find_if(images_, [&](const auto& entry) {
        const auto& image = entry.second;
        return image.state == ImageState::available && !dropping_.contains(image.digest) &&
               (image.digest == checksum || image.checksum == checksum);
    });
    return it == images_.end() ? nullptr : &it->second;
}

// Its record comes before it: after a crash the record tells which blob nobody else has, and with a second name the
// blob outlives a delete of the first.
ImageService::Done ImageService::announce(std::string name, storage::Blob blob, Proof proof) {
    while (dropping_.contains(blob.digest)) co_await dropped_.wait();
    const auto it = images_.find(name);
    assert(it != images_.end() && "its name is taken while it is fetched");
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
    auto image = *found;
    image.state = ImageState::available;
    image.refreshed_at = p_.clock.wall();
    storage::Changes changes;
    changes.emplace_back(storage::ImageRow{name, to_document(image)});
    auto kept = co_await base::shielded(p_.store.commit(std::move(changes)));
    if (kept) put(std::move(image));
    co_return kept;
}

// A fetch that failed leaves nothing behind, so its name goes with it.
asio::awaitable<void> ImageService::forget(std::string name) {
    const auto* found = find(name);
    if (found == nullptr) co_return;
    const auto image = *found;
    const bool nobodys = !image.digest.empty() && last_name_of_blob(image) && used_by(image).empty();
    erase(name);
    if (nobodys)
        if (const auto gone = co_await remove_blob(image.digest, image.format); !gone)
            p_.log.warn("a blob that nobody wants can't be deleted",
                        {{"image", name}, {"digest", image.digest}, {"error", gone.error().detail}});
    if (images_.contains(name) || !recorded_.contains(name)) co_return;
    storage::Changes changes;
    changes.emplace_back(storage::EraseImage{name});
    const auto done = co_await base::shielded(p_.store.commit(std::move(changes)));
    // Otherwise the operations that waited for it take it along.
    if (done && !images_.contains(name)) recorded_.erase(name);
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
            (void)co_await finish_fetch(name);
        else if (!p_.operations.busy("image:" + name))
            co_await forget(name);
    }
    for (const auto& name : refreshed) {
        const auto next = *images_.at(name).next;
        images_.at(name).next.reset();
        const bool nobodys =
            std::ranges::none_of(images_, [&next](const auto& entry) { return entry.second.digest == next.digest; });
        if (nobodys) (void)co_await remove_blob(next.digest, next.format);
    }
}

}  // namespace ghost::agent
