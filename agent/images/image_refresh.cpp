// A name moves to what its source has now; what VMs stand on stays.
#include "agent/images/image_service.hpp"
#include "base/shielded.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

ImageService::Begun ImageService::refresh(base::Context context, std::string name) {
    const auto* image = find(name);
    if (image == nullptr) co_return base::fail(base::Errc::not_found, "no image named " + name);
    if (is_local(image->source)) {
        base::Error error{base::Errc::state_conflict, name + " was made from a local file: delete it and add it again"};
        error.facts["state"] = "local";
        error.facts["allowed"] = boost::json::array{"delete"};
        co_return base::fail(std::move(error));
    }
    OperationRequest operation;
    operation.kind = "image.refresh";
    operation.target = {"image", "image:" + name, name};
    operation.context = std::move(context);
    operation.cancellable = true;
    operation.result_href = "/v1/images/" + name;
    if (operation.context.dry_run) {
        operation.would = {fmt::format("ask {} what it has now", image->source),
                           fmt::format("if that is another image, fetch it and move the name {} to it", name)};
        co_return p_.operations.preview(std::move(operation));
    }
    co_return co_await p_.operations.begin(
        std::move(operation), [this, name](OperationControl& control) { return run_refresh(control, name); });
}

asio::awaitable<Outcome> ImageService::run_refresh(OperationControl& control, std::string name) {
    Outcome outcome;
    outcome.result = co_await control.begin_step("fetch");
    const auto* image = find(name);
    if (outcome.result && (image == nullptr || image->state != ImageState::available))
        outcome.result = base::fail(base::Errc::not_found, fmt::format("there is no image named {} any more", name));
    if (!outcome.result) co_return outcome;
    // What was allowed unproven once, by name or by address, is so again.
    const AddImage request{.name = name,
                           .source = image->source,
                           .checksum = {},
                           .format = image->format == "raw" ? std::optional<std::string>{"raw"} : std::nullopt,
                           .allow_unverified = image->verified == "none"};
    auto source = find_source(request, rules_.catalogue);
    if (source && is_on_the_web(request.source) && image->verified == "checksum") source->checksum = image->checksum;
    if (!source) {
        outcome.result = base::fail(std::move(source).error());
        co_return outcome;
    }
    const bool unproven = request.allow_unverified;
    auto work = [this, name, source = *source, unproven](storage::OnProgress report) {
        return fetch_newer(name, source, unproven, std::move(report));
    };
    outcome.result =
        co_await control.cancellable(fetches_.join("refresh " + name, std::move(work), shown_by(control, false)));
    if (outcome.result) control.no_more_cancel();
    co_return outcome;
}

ImageService::Done ImageService::fetch_newer(std::string name, ImageSource source, bool unproven,
                                             storage::OnProgress report) {
    co_await asio::this_coro::throw_if_cancelled(false);
    const PartHeld held{*this, name};
    const auto* image = find(name);
    if (image == nullptr) co_return base::fail(base::Errc::not_found, "no image named " + name);
    bool fetched = false;
    if (image->next) {
        const auto file = co_await p_.files.stat(path_of(image->next->digest, image->next->format));
        fetched = file && file->has_value();
    }
    auto done =
        fetched ? base::Result<void>{} : co_await fetch_if_newer(name, std::move(source), unproven, std::move(report));
    if (done) done = co_await move_name(name);
    if (auto it = images_.find(name); !done && !closing_ && it != images_.end()) give_up_next(it->second);
    promised_.erase(name);
    if (room_used) co_await room_used(name);
    if (done) co_await tidy();
    co_return done;
}

ImageService::Done ImageService::fetch_if_newer(std::string name, ImageSource source, bool unproven,
                                                storage::OnProgress report) {
    report({"proof", 0, 0});
    auto proof = co_await p_.proof.of(source, name);
    if (!proof) co_return base::fail(std::move(proof).error());
    if (proof->verified == "none" && !unproven)
        co_return base::fail(base::Errc::unverified_image, "nothing proves the image any more");
    const auto* image = find(name);
    if (image == nullptr) co_return base::fail(base::Errc::not_found, "no image named " + name);
    if (proof->checksum && (*proof->checksum == image->checksum || *proof->checksum == image->digest))
        co_return base::Result<void>{};
    source.checksum = proof->checksum;
    co_return co_await fetch_blob(name, std::move(source), std::move(*proof), std::move(report));
}

// To what was announced as its next blob, if there is one.
ImageService::Done ImageService::move_name(std::string name) {
    const auto it = images_.find(name);
    if (it == images_.end()) co_return base::fail(base::Errc::not_found, "no image named " + name);
    // Here before it is on disk: whoever writes the image's row meanwhile writes it like this.
    const auto before = it->second;
    auto& image = it->second;
    if (auto next = std::exchange(image.next, std::nullopt)) {
        if (next->digest != image.digest) {
            std::erase(image.older, next->digest);
            image.older.push_back(image.digest);
        }
        static_cast<ImageBlob&>(image) = std::move(*next);
    }
    image.refreshed_at = p_.clock.wall();
    storage::Changes changes;
    changes.emplace_back(storage::ImageRow{name, to_document(image)});
    auto kept = co_await base::shielded(p_.store.commit(std::move(changes)));
    const auto now = images_.find(name);
    if (now == images_.end()) co_return kept;
    if (kept) {
        put(Image{now->second});
        co_return kept;
    }
    auto& moved = now->second;
    moved.next = static_cast<const ImageBlob&>(moved);
    static_cast<ImageBlob&>(moved) = static_cast<const ImageBlob&>(before);
    moved.older = before.older;
    moved.refreshed_at = before.refreshed_at;
    co_return kept;
}

// A newer blob that the name didn't come to: it goes when nobody stands on it.
void ImageService::give_up_next(Image& image) {
    const auto next = std::exchange(image.next, std::nullopt);
    if (next && next->digest != image.digest && std::ranges::find(image.older, next->digest) == image.older.end())
        image.older.push_back(next->digest);
}

}  // namespace ghost::agent
