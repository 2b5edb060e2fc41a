#include "agent/images/image_service.hpp"

#include "base/shielded.hpp"

#include <boost/asio/this_coro.hpp>
#include <boost/json/array.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

bool is_below(std::string_view path, std::string_view directory) {
    while (directory.ends_with('/')) directory.remove_suffix(1);
    return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
}

std::string text_in(const boost::json::object& object, std::string_view key) {
    const auto* const value = object.if_contains(key);
    return value != nullptr && value->is_string() ? std::string{value->get_string()} : std::string{};
}

}  // namespace

ImageService::ImageService(const asio::any_io_executor& executor, ImageParts parts, ImageRules rules)
    : p_(parts),
      rules_(std::move(rules)),
      fetches_(executor, parts.log),
      dropped_(executor),
      changed_(executor),
      part_left_(executor),
      room_turns_(executor) {}

void ImageService::restore(const std::vector<storage::ImageRow>& rows) {
    for (const auto& row : rows) {
        recorded_.insert(row.name);
        auto image = image_from_document(row.document);
        if (image)
            images_.emplace(image->name, std::move(*image));
        else
            p_.log.error("an image's record can't be read", {{"image", row.name}, {"error", image.error().detail}});
    }
}

const Image* ImageService::find(std::string_view name) const {
    const auto it = images_.find(name);
    return it == images_.end() ? nullptr : &it->second;
}

void ImageService::put(Image image) {
    const auto name = image.name;
    images_.insert_or_assign(name, std::move(image));
    changed_.notify();
    if (on_change) on_change(name);
}

void ImageService::erase(const std::string& name) {
    images_.erase(name);
    changed_.notify();
    if (on_change) on_change(name);
}

Image ImageService::new_image(const AddImage& request) const {
    Image image;
    image.name = request.name;
    image.source = request.source;
    image.architecture = rules_.architecture;
    image.created_at = p_.clock.wall();
    return image;
}

std::vector<std::string> ImageService::used_by(const Image& image) const {
    std::vector<std::string> ids;
    if (image.digest.empty()) return ids;
    for (const auto& [id, vm] : p_.vms.all())
        if (vm.managed && vm.plan.image_digest == image.digest) ids.push_back(id);
    return ids;
}

std::optional<storage::ImageRow> ImageService::used(std::string_view name) {
    const auto it = images_.find(name);
    if (it == images_.end()) return std::nullopt;
    it->second.last_used_at = p_.clock.wall();
    return storage::ImageRow{it->first, to_document(it->second)};
}

std::vector<storage::ImageRow> ImageService::used_until_now(std::string_view digest) {
    std::vector<storage::ImageRow> rows;
    for (auto& [name, image] : images_) {
        if (digest.empty() || image.digest != digest) continue;
        image.last_used_at = p_.clock.wall();
        rows.push_back({name, to_document(image)});
    }
    return rows;
}

asio::awaitable<base::Result<std::string>> ImageService::allowed_path(const base::Context& context,
                                                                      const std::string& source) const {
    const auto path = local_path(source).value_or("");
    if (context.who.kind == base::Principal::Kind::socket && context.who.admin) co_return path;
    if (rules_.import_dirs.empty())
        co_return base::fail(
            base::Errc::forbidden,
            "local files are only added over the Unix socket, or from images.import_dirs, which is empty");
    auto real = co_await p_.files.resolve(path);
    if (real)
        for (const auto& dir : rules_.import_dirs)
            if (const auto root = co_await p_.files.resolve(dir); root && is_below(*real, *root)) co_return *real;
    // The same answer for a file outside and for none at all: who may not read here learns nothing.
    co_return base::fail(base::Errc::forbidden, "the file is not in one of images.import_dirs");
}

ImageService::Begun ImageService::add(base::Context context, AddImage request) {
    // A client that goes away now leaves no name behind that nobody works on.
    co_await asio::this_coro::throw_if_cancelled(false);
    std::string path;
    if (is_local(request.source)) {
        auto allowed = co_await allowed_path(context, request.source);
        if (!allowed) co_return base::fail(allowed.error());
        path = std::move(*allowed);
    }
    // One that is being fetched for VMs is waited for with them.
    const auto* known = find(request.name);
    const bool joins = known != nullptr && known->state == ImageState::downloading && known->source == request.source;
    if (known != nullptr && !joins)
        co_return base::fail(base::Errc::already_exists,
                             fmt::format("there is an image named {} already", request.name));
    OperationRequest operation;
    operation.kind = "image.add";
    operation.target = {"image", "image:" + request.name, request.name};
    operation.cancellable = true;
    operation.result_href = "/v1/images/" + request.name;
    operation.context = std::move(context);
    operation.plan = to_json(request);
    operation.plan["path"] = path;
    if (operation.context.dry_run) {
        ImageSource source{.path = path, .checksum = request.checksum, .format = request.format};
        if (path.empty()) {
            auto found = find_source(request, rules_.catalogue);
            if (!found) co_return base::fail(std::move(found).error());
            source = std::move(*found);
        }
        co_return co_await preview_add(std::move(operation), std::move(source));
    }
    const auto name = request.name;
    if (!joins) put(new_image(request));
    want(name);
    auto begun = co_await p_.operations.begin(std::move(operation),
                                              [this, request = std::move(request), path](OperationControl& control) {
                                                  return run_add(control, request, path);
                                              });
    if (!begun) co_await let_go(name);
    co_return begun;
}

ImageService::Begun ImageService::preview_add(OperationRequest operation, ImageSource source) const {
    if (source.path.empty()) {
        operation.would = {fmt::format("fetch {}", source.urls.front()), "check what came"};
    } else {
        const auto file = co_await p_.files.stat(source.path);
        if (!file) co_return base::fail(file.error());
        if (!file->has_value() || !(*file)->regular)
            co_return base::fail(base::Errc::not_found, "no regular file at " + source.path);
        operation.would = {fmt::format("copy {} into the cache", source.path), "check the copy"};
        operation.needs = {{"needed", boost::json::object{{"disk_bytes", (*file)->allocated}}}};
    }
    operation.would.push_back(fmt::format("name it {}", operation.target.name));
    co_return p_.operations.preview(std::move(operation));
}

asio::awaitable<Outcome> ImageService::run_add(OperationControl& control, AddImage request, std::string path) {
    Outcome outcome;
    const auto name = request.name;
    // It came before the agent died.
    const auto* known = find(name);
    if (known == nullptr || known->state != ImageState::available) {
        outcome.result = co_await await_fetch(control, std::move(request), std::move(path));
        if (outcome.result) control.no_more_cancel();
    }
    co_await let_go(name);
    if (!outcome.result) erase_lost_record(outcome, name);
    co_return outcome;
}

ImageService::Done ImageService::await_fetch(OperationControl& control, AddImage request, std::string path) {
    if (auto begun = co_await control.begin_step("fetch"); !begun) co_return begun;
    const auto name = request.name;
    auto work = [this, name, request, path](storage::OnProgress report) {
        return fetch(name, request, path, std::move(report));
    };
    co_return co_await control.cancellable(fetches_.join(name, std::move(work), shown_by(control, false)));
}

void ImageService::erase_lost_record(Outcome& outcome, const std::string& name) {
    if (images_.contains(name) || !recorded_.contains(name)) return;
    outcome.changes.emplace_back(storage::EraseImage{name});
    outcome.applied = [this, name, then = std::move(outcome.applied)] {
        if (!images_.contains(name)) recorded_.erase(name);
        if (then) then();
    };
}

void ImageService::renew(storage::Changes& changes) const {
    std::erase_if(changes, [this](const storage::Change& change) {
        const auto* const erased = std::get_if<storage::EraseImage>(&change);
        const auto* const row = std::get_if<storage::ImageRow>(&change);
        return (erased != nullptr && images_.contains(erased->name)) ||
               (row != nullptr && !images_.contains(row->name));
    });
    for (auto& change : changes)
        if (auto* const row = std::get_if<storage::ImageRow>(&change))
            row->document = to_document(images_.at(row->name));
}

bool ImageService::last_name_of_blob(const Image& image) const {
    return std::ranges::count_if(images_, [&image](const auto& entry) {
               return !image.digest.empty() && (entry.second.digest == image.digest ||
                                                (entry.second.next && entry.second.next->digest == image.digest));
           }) <= 1;
}

base::Result<void> ImageService::removable(const Image& image) const {
    const auto conflict = [](std::string sentence, std::string_view state) {
        base::Error error{base::Errc::state_conflict, std::move(sentence)};
        error.facts["state"] = state;
        error.facts["allowed"] = boost::json::array{};
        return error;
    };
    if (image.state == ImageState::downloading)
        return base::fail(conflict(fmt::format("{} is being fetched; cancel that operation instead", image.name),
                                   name_of(image.state)));
    auto users = used_by(image);
    // Under another name the blob stays; whose spec has this one keeps it all the same.
    if (!last_name_of_blob(image))
        std::erase_if(users, [&](const auto& id) { return p_.vms.find(id)->spec.image != image.name; });
    if (users.empty()) return {};
    // Nothing but reading it is allowed, until those VMs are gone.
    auto in_use = conflict(
        fmt::format("{} is the base of {} VM{}", image.name, users.size(), users.size() == 1 ? "" : "s"), "in_use");
    in_use.facts["used_by"] = boost::json::array(users.begin(), users.end());
    return base::fail(std::move(in_use));
}

// Neither ours nor anybody else's.
ImageService::Done ImageService::nobody_stands_on(const Image& image) const {
    if (image.digest.empty() || !last_name_of_blob(image)) co_return base::Result<void>{};
    const auto used = co_await all_files_in_use();
    if (!used) co_return base::fail(used.error());
    if (!used->contains(path_of(image.digest, image.format))) co_return base::Result<void>{};
    base::Error in_use{base::Errc::state_conflict,
                       fmt::format("the disk of a domain that isn't the agent's stands on {}", image.name)};
    in_use.facts["state"] = "in_use";
    in_use.facts["allowed"] = boost::json::array{};
    co_return base::fail(std::move(in_use));
}

ImageService::Begun ImageService::remove(base::Context context, std::string name) {
    const auto* found = find(name);
    if (found == nullptr) co_return base::fail(base::Errc::not_found, "no image named " + name);
    const auto image = *found;
    if (const auto may = removable(image); !may) co_return base::fail(may.error());
    OperationRequest operation;
    operation.kind = "image.delete";
    operation.target = {"image", "image:" + image.name, image.name};
    operation.context = std::move(context);
    if (operation.context.dry_run) {
        if (const auto free = co_await nobody_stands_on(image); !free) co_return base::fail(free.error());
        operation.would = {fmt::format("take the name {} away", image.name)};
        if (last_name_of_blob(image)) operation.would.emplace_back("delete its blob");
        co_return p_.operations.preview(std::move(operation));
    }
    co_return co_await p_.operations.begin(std::move(operation),
                                           [this, name](OperationControl& control) { return drop(control, name); });
}

asio::awaitable<Outcome> ImageService::drop(OperationControl& control, std::string name) {
    Outcome outcome;
    outcome.result = co_await control.begin_step("delete");
    const auto* found = find(name);
    if (!outcome.result || found == nullptr) co_return outcome;
    const auto image = *found;
    outcome.result = co_await nobody_stands_on(image);
    if (outcome.result) outcome.result = removable(image);  // once more: a VM may have been made of it meanwhile
    if (!outcome.result) co_return outcome;
    const bool last = last_name_of_blob(image);
    // From now on no VM can be made of it; its blob goes when no other name points there.
    erase(image.name);
    if (last) outcome.result = co_await remove_blob(image.digest, image.format);
    if (outcome.result && !image.older.empty()) co_await drop_older(image);
    if (outcome.result)
        outcome.changes.emplace_back(storage::EraseImage{image.name});
    else
        put(image);
    co_return outcome;
}

ImageService::Done ImageService::remove_blob(std::string digest, std::string format) {
    if (digest.empty()) co_return base::Result<void>{};
    dropping_.insert(digest);
    auto removed = co_await p_.cache.remove(digest, std::move(format));
    dropping_.erase(digest);
    dropped_.notify();
    co_return removed;
}

// After a crash nothing is known of the domains at first, nor of what their disks stand on.
asio::awaitable<Outcome> ImageService::after_domains(OperationControl& control,
                                                     std::function<asio::awaitable<Outcome>()> work) {
    if (domains_known) co_await domains_known(base::Duration::max());
    if (control.stopping()) co_return Outcome{base::fail(interrupted()), {}, {}};
    co_return co_await work();
}

void ImageService::recover(const Operation& operation) {
    const auto name = operation.target.name;
    OperationService& operations = p_.operations;
    if (operation.kind == "image.add") {
        auto request = add_image_from_json(operation.plan);
        // Versions that couldn't go on with one kept no plan.
        if (request.source.empty() && find(name) != nullptr) request.source = find(name)->source;
        request.name = name;
        auto path = text_in(operation.plan, "path");
        if (path.empty()) path = local_path(request.source).value_or("");
        if (find(name) == nullptr) put(new_image(request));
        want(name);
        operations.resume(operation.id,
                          [this, request, path](OperationControl& control) { return run_add(control, request, path); });
    } else if (operation.kind == "image.refresh") {
        operations.resume(operation.id, [this, name](OperationControl& control) { return run_refresh(control, name); });
    } else if (operation.kind == "image.prune") {
        operations.resume(operation.id, [this](OperationControl& control) {
            return after_domains(control, [this, &control] { return run_prune(control); });
        });
    } else {
        operations.resume(operation.id, [this, name](OperationControl& control) {
            return after_domains(control, [this, &control, name] { return drop(control, name); });
        });
    }
}

}  // namespace ghost::agent
