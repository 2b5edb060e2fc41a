#include "agent/images/image_service.hpp"

#include "agent/json_reader.hpp"
#include "base/shielded.hpp"
#include "net/http.hpp"

#include <boost/asio/this_coro.hpp>
#include <boost/json/array.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cctype>
#include <memory>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::string_view file_scheme = "file://";

bool is_hex_digest(std::string_view text, std::string_view prefix, std::size_t digits) {
    if (!text.starts_with(prefix) || text.size() != prefix.size() + digits) return false;
    return std::ranges::all_of(text.substr(prefix.size()), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

// "file:///images/web.qcow2" -> "web"; characters that a name can't have become dashes.
std::string name_from_path(std::string_view path) {
    auto base = path.substr(path.rfind('/') + 1);
    for (const std::string_view suffix : {".qcow2", ".img", ".raw"})
        if (base.ends_with(suffix)) base.remove_suffix(suffix.size());
    std::string name{base.substr(0, 128)};
    for (auto& c : name)
        if (!is_image_name(std::string{'a', c})) c = '-';
    return name;
}

bool is_below(std::string_view path, std::string_view directory) {
    while (directory.ends_with('/')) directory.remove_suffix(1);
    return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
}

}  // namespace

base::Result<AddImage> read_add_image(const boost::json::value& body) {
    std::vector<base::Fault> faults;
    if (!body.is_object()) {
        faults.push_back({"", "expected an object, got " + describe(body)});
        return base::fail(validation_error(std::move(faults)));
    }
    AddImage add;
    JsonReader reader{body.get_object(), "", faults};
    reader.require("source");
    add.source = reader.string("source", 4096).value_or("");
    if (!add.source.empty()) {
        const auto path = std::string_view{add.source}.starts_with(file_scheme)
                              ? net::percent_decode(std::string_view{add.source}.substr(file_scheme.size()))
                              : std::nullopt;
        if (!path || !path->starts_with('/'))
            reader.fault("source", "expected the URL of a local file, file:///absolute/path");
        else if (!reader.has("name") && !is_image_name(name_from_path(*path)))
            reader.fault("name", "is required: none can be made from the source");
    } else if (reader.has("source")) {
        reader.fault("source", "must not be empty");
    }
    if (const auto name = reader.string("name", 256)) {
        if (!is_image_name(*name))
            reader.fault("name",
                         "expected letters, digits, '-', '_' and '.', starting with a letter or digit, at most 128");
        add.name = *name;
    }
    add.format = reader.one_of("format", {"qcow2", "raw"});
    add.checksum = reader.string("checksum", 256);
    if (add.checksum && !is_hex_digest(*add.checksum, "sha256:", 64) && !is_hex_digest(*add.checksum, "sha512:", 128))
        reader.fault("checksum", "expected sha256:<64 hex digits> or sha512:<128 hex digits>");
    (void)reader.boolean("allow_unverified");  // a local file is the caller's own: nothing to allow
    reader.finish();
    if (!faults.empty()) return base::fail(validation_error(std::move(faults)));
    return add;
}

ImageService::ImageService(const asio::any_io_executor& executor, storage::ImageCache& cache, storage::Files& files,
                           storage::StateStore& store, OperationService& operations, VmIndex& vms, base::Clock& clock,
                           std::vector<std::string> import_dirs, std::string architecture)
    : cache_(cache),
      files_(files),
      store_(store),
      operations_(operations),
      vms_(vms),
      clock_(clock),
      import_dirs_(std::move(import_dirs)),
      architecture_(std::move(architecture)),
      dropped_(executor) {}

void ImageService::restore(const std::vector<storage::ImageRow>& rows, base::Log& log) {
    for (const auto& row : rows) {
        auto image = image_from_document(row.document);
        if (image)
            images_.emplace(image->name, std::move(*image));
        else
            log.error("an image's record can't be read", {{"image", row.name}, {"error", image.error().detail}});
    }
}

const Image* ImageService::find(std::string_view name) const {
    const auto it = images_.find(name);
    return it == images_.end() ? nullptr : &it->second;
}

void ImageService::put(Image image) {
    const auto name = image.name;
    images_.insert_or_assign(name, std::move(image));
    if (on_change) on_change(name);
}

void ImageService::erase(const std::string& name) {
    images_.erase(name);
    if (on_change) on_change(name);
}

std::vector<std::string> ImageService::used_by(const Image& image) const {
    std::vector<std::string> ids;
    if (image.digest.empty()) return ids;
    for (const auto& [id, vm] : vms_.all())
        if (vm.managed && vm.plan.image_digest == image.digest) ids.push_back(id);
    return ids;
}

std::optional<storage::ImageRow> ImageService::used(std::string_view name) {
    const auto it = images_.find(name);
    if (it == images_.end()) return std::nullopt;
    it->second.last_used_at = clock_.wall();
    return storage::ImageRow{it->first, to_document(it->second)};
}

asio::awaitable<base::Result<std::string>> ImageService::allowed_path(const base::Context& context,
                                                                      const std::string& source) const {
    const auto path = net::percent_decode(std::string_view{source}.substr(file_scheme.size())).value_or("");
    if (context.who.kind == base::Principal::Kind::socket && context.who.admin) co_return path;
    if (import_dirs_.empty())
        co_return base::fail(
            base::Errc::forbidden,
            "local files are only added over the Unix socket, or from images.import_dirs, which is empty");
    auto real = co_await files_.resolve(path);
    if (real)
        for (const auto& dir : import_dirs_)
            if (const auto root = co_await files_.resolve(dir); root && is_below(*real, *root)) co_return *real;
    // The same answer for a file outside and for none at all: who may not read here learns nothing.
    co_return base::fail(base::Errc::forbidden, "the file is not in one of images.import_dirs");
}

asio::awaitable<base::Result<OperationService::Ptr>> ImageService::add(base::Context context, AddImage request) {
    // A client that goes away now leaves no name behind that nobody works on.
    co_await asio::this_coro::throw_if_cancelled(false);
    auto path = co_await allowed_path(context, request.source);
    if (!path) co_return base::fail(path.error());
    Image image;
    image.name = request.name.empty() ? name_from_path(*path) : request.name;
    image.source = request.source;
    image.architecture = architecture_;
    image.created_at = clock_.wall();
    if (images_.contains(image.name))
        co_return base::fail(base::Errc::already_exists, fmt::format("there is an image named {} already", image.name));
    OperationRequest operation;
    operation.kind = "image.add";
    operation.target = {"image", "image:" + image.name, image.name};
    operation.context = context;
    operation.cancellable = true;
    operation.result_href = "/v1/images/" + image.name;
    if (context.dry_run) co_return co_await preview_add(std::move(operation), *path);
    put(image);
    storage::ImportRequest import_request{*path, request.format, request.checksum, image.name};
    auto begun = co_await operations_.begin(
        std::move(operation),
        [this, image, import_request](OperationControl& control) { return import(control, image, import_request); });
    if (!begun) erase(image.name);
    co_return begun;
}

asio::awaitable<base::Result<OperationService::Ptr>> ImageService::preview_add(OperationRequest operation,
                                                                               std::string path) const {
    const auto file = co_await files_.stat(path);
    if (!file) co_return base::fail(file.error());
    if (!file->has_value() || !(*file)->regular)
        co_return base::fail(base::Errc::not_found, "no regular file at " + path);
    operation.would = {fmt::format("copy {} into the cache", path), "check the copy",
                       fmt::format("name it {}", operation.target.name)};
    operation.needs = {{"needed", boost::json::object{{"disk_bytes", (*file)->allocated}}}};
    co_return operations_.preview(std::move(operation));
}

asio::awaitable<Outcome> ImageService::import(OperationControl& control, Image image, storage::ImportRequest request) {
    Outcome outcome;
    outcome.result = co_await control.begin_step("copying");
    if (!outcome.result) co_return undone(std::move(outcome), image.name);
    auto blob = std::make_shared<storage::Blob>();
    // Named before it is awaited: the closure must outlive the import.
    const auto report = [&control, phase = std::string{"copying"}](const storage::ImportProgress& p) mutable {
        if (p.phase != phase) control.phase(phase = p.phase);
        control.progress(p.done, p.total, "bytes");
    };
    const auto fetch = [](ImageService& self, storage::ImportRequest what,
                          std::function<void(const storage::ImportProgress&)> progress,
                          std::shared_ptr<storage::Blob> out) -> asio::awaitable<base::Result<void>> {
        auto made = co_await self.fetch_blob(std::move(what), std::move(progress));
        if (!made) co_return base::fail(made.error());
        *out = std::move(*made);
        co_return base::Result<void>{};
    };
    if (room) request.room = [this, name = image.name](std::uint64_t bytes) { return room(name, bytes); };
    request.announce = [this, name = image.name](storage::Blob made) { return announce(name, std::move(made)); };
    outcome.result = co_await control.cancellable(fetch(*this, request, report, blob));
    if (room_used) co_await room_used(image.name);
    if (!outcome.result) co_return undone(std::move(outcome), image.name);
    control.no_more_cancel();
    image.digest = blob->digest;
    image.format = blob->format;
    image.size = blob->size;
    image.virtual_size = blob->virtual_size;
    image.verified = request.checksum ? "checksum" : "local";
    image.state = ImageState::available;
    outcome.changes.emplace_back(storage::ImageRow{image.name, to_document(image)});
    outcome.applied = [this, image] { put(image); };
    co_return outcome;
}

// An import that failed leaves nothing behind, so its name goes with its end.
Outcome ImageService::undone(Outcome outcome, const std::string& name) {
    outcome.changes.emplace_back(storage::EraseImage{name});
    outcome.applied = [this, name] { erase(name); };
    return outcome;
}

// Its record comes before it: after a crash the record tells which blob nobody else has, and with a second name the
// blob outlives a delete of the first.
asio::awaitable<base::Result<void>> ImageService::announce(std::string name, storage::Blob blob) {
    const auto it = images_.find(name);
    assert(it != images_.end() && "its name is taken while it is added");
    it->second.digest = std::move(blob.digest);
    it->second.format = std::move(blob.format);
    storage::Changes changes;
    changes.emplace_back(storage::ImageRow{name, to_document(it->second)});
    co_return co_await base::shielded(store_.commit(std::move(changes)));
}

// A blob that is deleted under another name just as it is made again is made once more.
asio::awaitable<base::Result<storage::Blob>> ImageService::fetch_blob(
    storage::ImportRequest request, std::function<void(const storage::ImportProgress&)> progress) {
    for (;;) {
        auto blob = co_await cache_.import(request, progress);
        if (!blob || !dropping_.contains(blob->digest)) co_return blob;
        while (dropping_.contains(blob->digest)) co_await dropped_.wait();
    }
}

bool ImageService::last_name_of_blob(const Image& image) const {
    return std::ranges::count_if(images_, [&image](const auto& entry) {
               return !image.digest.empty() && entry.second.digest == image.digest;
           }) <= 1;
}

base::Result<void> ImageService::removable(const Image& image) const {
    auto users = used_by(image);
    // Under another name the blob stays; whose spec has this one keeps it all the same.
    if (!last_name_of_blob(image))
        std::erase_if(users, [&](const auto& id) { return vms_.find(id)->spec.image != image.name; });
    if (users.empty()) return {};
    base::Error in_use{base::Errc::state_conflict, fmt::format("{} is the base of {} VM{}", image.name, users.size(),
                                                               users.size() == 1 ? "" : "s")};
    in_use.facts["state"] = "in_use";
    in_use.facts["allowed"] = boost::json::array{};  // nothing but reading it, until those VMs are gone
    in_use.facts["used_by"] = boost::json::array(users.begin(), users.end());
    return base::fail(std::move(in_use));
}

asio::awaitable<base::Result<OperationService::Ptr>> ImageService::remove(base::Context context, std::string name) {
    const auto* found = find(name);
    if (found == nullptr) co_return base::fail(base::Errc::not_found, "no image named " + name);
    const auto image = *found;
    if (const auto may = removable(image); !may) co_return base::fail(may.error());
    OperationRequest operation;
    operation.kind = "image.delete";
    operation.target = {"image", "image:" + image.name, image.name};
    operation.context = std::move(context);
    if (operation.context.dry_run) {
        operation.would = {fmt::format("take the name {} away", image.name)};
        if (last_name_of_blob(image)) operation.would.emplace_back("delete its blob");
        co_return operations_.preview(std::move(operation));
    }
    auto begun = co_await operations_.begin(std::move(operation),
                                            [this, image](OperationControl& control) { return drop(control, image); });
    co_return begun;
}

asio::awaitable<Outcome> ImageService::drop(OperationControl& control, Image image) {
    (void)co_await control.begin_step("delete");
    Outcome outcome;
    outcome.result = removable(image);  // once more: a VM may have been made of it meanwhile
    if (!outcome.result) co_return outcome;
    const bool last = last_name_of_blob(image);
    // From now on no VM can be made of it; its blob goes when no other name points there.
    erase(image.name);
    if (last) outcome.result = co_await remove_blob(image);
    if (outcome.result)
        outcome.changes.emplace_back(storage::EraseImage{image.name});
    else
        put(image);
    co_return outcome;
}

asio::awaitable<base::Result<void>> ImageService::remove_blob(Image image) {
    if (image.digest.empty()) co_return base::Result<void>{};
    dropping_.insert(image.digest);
    auto removed = co_await cache_.remove(image.digest, image.format);
    dropping_.erase(image.digest);
    dropped_.notify();
    co_return removed;
}

// Its temporary was cleared when the cache was opened; what else there may be is a blob that its record announced.
asio::awaitable<Outcome> ImageService::undo_import(std::string name) {
    Outcome outcome;
    outcome.result = base::fail(base::Errc::interrupted, "the agent stopped while this was under way; it was undone");
    const auto* found = find(name);
    if (found == nullptr) co_return outcome;
    const auto image = *found;
    const bool nobodys = last_name_of_blob(image) && used_by(image).empty();
    erase(name);
    if (nobodys)
        if (auto removed = co_await remove_blob(image); !removed) outcome.result = removed;
    outcome.changes.emplace_back(storage::EraseImage{name});
    co_return outcome;
}

asio::awaitable<Outcome> ImageService::finish_drop(OperationControl& control, std::string name) {
    if (const auto* found = find(name)) co_return co_await drop(control, *found);
    co_return Outcome{};
}

void ImageService::recover(const Operation& operation) {
    const auto name = operation.target.name;
    if (operation.kind == "image.add") {
        operations_.resume(operation.id, [this, name](OperationControl&) { return undo_import(name); });
        return;
    }
    operations_.resume(operation.id, [this, name](OperationControl& control) { return finish_drop(control, name); });
}

}  // namespace ghost::agent
