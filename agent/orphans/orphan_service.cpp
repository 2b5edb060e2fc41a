#include "agent/orphans/orphan_service.hpp"

#include "base/ids.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

constexpr std::size_t uuid_length = 36;
constexpr std::size_t digest_length = 64;

// A write's temporary is .NAME.new: what it would have become.
std::string_view without_temporary(std::string_view name) {
    if (name.starts_with('.') && name.ends_with(".new")) {
        name.remove_prefix(1);
        name.remove_suffix(4);
    }
    return name;
}

bool is_digest(std::string_view text) {
    return text.size() == digest_length &&
           std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0 || (c >= 'a' && c <= 'f'); });
}

const std::string& key_of(const Orphan& orphan) {
    return orphan.kind == Orphan::Kind::domain ? orphan.id : orphan.path;
}

std::string describe(const Orphan& orphan) {
    return orphan.kind == Orphan::Kind::domain ? fmt::format("undefine the domain {} ({})", orphan.name, orphan.id)
                                               : fmt::format("delete {} ({} bytes)", orphan.path, orphan.bytes);
}

}  // namespace

json::object to_resource(const Orphan& orphan) {
    json::object out{{"kind", orphan.kind == Orphan::Kind::domain ? "domain" : "file"}};
    if (orphan.kind == Orphan::Kind::domain) {
        out["id"] = orphan.id;
        out["name"] = orphan.name;
    } else {
        out["path"] = orphan.path;
        out["bytes"] = orphan.bytes;
    }
    out["reason"] = orphan.reason;
    out["found_at"] = base::rfc3339(orphan.found_at);
    return out;
}

// "<uuid>-root.qcow2", "<uuid>-seed.iso", "<uuid>.log", "<uuid>.log.0" and their temporaries.
std::string OrphanService::why_vm_file(std::string_view name) const {
    name = without_temporary(name);
    if (name.size() <= uuid_length || (name[uuid_length] != '-' && name[uuid_length] != '.')) return {};
    const auto id = name.substr(0, uuid_length);
    if (!base::is_uuid(id) || p_.vms.find(id) != nullptr || p_.operations.busy(std::string{id})) return {};
    if (p_.service.leftovers().contains(std::string{id})) return {};  // goes with its domain
    return fmt::format("there is no VM {}", id);
}

// "<sha256>.qcow2" or ".raw".
std::string OrphanService::why_image_file(std::string_view name) const {
    const auto dot = name.find('.');
    const auto digest = name.substr(0, dot);
    if (!is_digest(digest)) return {};
    const auto full = fmt::format("sha256:{}", digest);
    for (const auto& [image_name, image] : p_.images.all())
        if (image.digest == full || image.state == ImageState::downloading ||
            (image.next && image.next->digest == full))
            return {};
    for (const auto& [id, vm] : p_.vms.all())
        if (vm.plan.image_digest == full) return {};
    return "no image and no VM has this blob";
}

asio::awaitable<base::Result<void>> OrphanService::find_in(std::string directory, std::vector<Orphan>& found,
                                                           std::string (OrphanService::*why)(std::string_view) const) {
    if (directory.empty()) co_return base::Result<void>{};
    const auto names = co_await p_.files.list(directory);
    if (!names) co_return base::fail(names.error());
    for (const auto& name : *names) {
        auto reason = (this->*why)(name);
        auto path = fmt::format("{}/{}", directory, name);
        if (reason.empty()) continue;
        const auto file = co_await p_.files.stat(path);
        if (!file || !file->has_value() || !(*file)->regular) continue;
        Orphan orphan;
        orphan.path = std::move(path);
        orphan.bytes = (*file)->allocated;
        orphan.reason = std::move(reason);
        found.push_back(std::move(orphan));
    }
    co_return base::Result<void>{};
}

// A disk of a domain, of whomever, is no orphan, nor is what any disk but an orphan stands on. What can't be looked
// into is taken to stand on nothing.
asio::awaitable<base::Result<void>> OrphanService::spare_what_is_in_use(std::vector<Orphan>& found) {
    if (found.empty()) co_return base::Result<void>{};
    std::set<std::string> paths;
    for (const auto& orphan : found) paths.insert(orphan.path);
    const auto used = co_await p_.chains.files_in_use(places_.disks, std::move(paths));
    if (!used) co_return base::fail(used.error());
    std::erase_if(found, [&used](const Orphan& orphan) {
        return orphan.kind == Orphan::Kind::file && used->contains(orphan.path);
    });
    co_return base::Result<void>{};
}

void OrphanService::note_first_seen(std::vector<Orphan>& found) {
    std::map<std::string, base::Wall> seen;
    for (auto& orphan : found) {
        const auto before = first_seen_.find(key_of(orphan));
        orphan.found_at = before == first_seen_.end() ? p_.clock.wall() : before->second;
        seen.emplace(key_of(orphan), orphan.found_at);
    }
    first_seen_ = std::move(seen);
}

asio::awaitable<base::Result<std::vector<Orphan>>> OrphanService::find() {
    if (!p_.observer.synced())
        co_return base::fail(base::Errc::hypervisor_unavailable,
                             "the hypervisor's domains aren't known, and what they use is no orphan");
    std::vector<Orphan> found;
    for (const auto& [id, vm] : p_.service.leftovers()) {
        Orphan orphan;
        orphan.kind = Orphan::Kind::domain;
        orphan.id = id;
        orphan.name = vm.name;
        orphan.reason = "its VM was deleted, and it couldn't be taken away";
        found.push_back(std::move(orphan));
    }
    for (const auto& directory : {places_.disks, places_.consoles})
        if (const auto done = co_await find_in(directory, found, &OrphanService::why_vm_file); !done)
            co_return base::fail(done.error());
    if (const auto done = co_await find_in(places_.images, found, &OrphanService::why_image_file); !done)
        co_return base::fail(done.error());
    if (const auto done = co_await spare_what_is_in_use(found); !done) co_return base::fail(done.error());
    note_first_seen(found);
    co_return found;
}

asio::awaitable<base::Result<OperationService::Ptr>> OrphanService::purge(base::Context context) {
    OperationRequest operation;
    operation.kind = "orphans.purge";
    operation.target = {"orphans", "orphans", "orphans"};
    operation.context = std::move(context);
    operation.result_href = "/v1/orphans";
    const auto found = co_await find();
    if (!found) co_return base::fail(found.error());
    if (operation.context.dry_run) {
        for (const auto& orphan : *found) operation.would.push_back(describe(orphan));
        co_return p_.operations.preview(std::move(operation));
    }
    co_return co_await p_.operations.begin(std::move(operation),
                                           [this](OperationControl& control) { return run_purge(control); });
}

asio::awaitable<Outcome> OrphanService::run_purge(OperationControl& control) {
    while (!p_.observer.synced() && !control.stopping()) co_await p_.observer.synced_changed().wait();
    Outcome outcome;
    outcome.result = base::fail(interrupted());
    if (control.stopping()) co_return outcome;
    (void)co_await control.begin_step("delete");
    const auto found = co_await find();
    outcome.result = found ? base::Result<void>{} : base::fail(found.error());
    std::size_t done = 0;
    for (const auto& orphan : found ? *found : std::vector<Orphan>{}) {
        control.progress(done++, found->size(), "orphans");
        if (control.stopping()) break;
        base::Result<void> removed;
        if (orphan.kind == Orphan::Kind::domain) {
            const auto vm = p_.service.leftovers().find(orphan.id);
            if (vm != p_.service.leftovers().end()) co_await p_.service.remove_leftover(vm->second);
            if (p_.service.leftovers().contains(orphan.id))
                removed = base::fail(base::Errc::hypervisor_error, "the domain can't be undefined; the log says why");
        } else {
            removed = co_await p_.files.remove(orphan.path);
        }
        p_.log.info("orphan purged", {{"what", key_of(orphan)}, {"done", removed.has_value()}});
        if (!removed) outcome.result = removed;
    }
    if (control.stopping()) outcome.result = base::fail(interrupted());
    if (found) control.progress(done, found->size(), "orphans");
    co_return outcome;
}

void OrphanService::recover(const Operation& operation) {
    p_.operations.resume(operation.id, [this](OperationControl& control) { return run_purge(control); });
}

asio::awaitable<void> OrphanService::watch() {
    while (co_await p_.clock.sleep_for(watch_interval)) {
        const auto before = first_seen_;
        const auto found = co_await find();
        if (!found) continue;
        for (const auto& orphan : *found)
            if (!before.contains(key_of(orphan)))
                p_.log.warn("an orphan: GET /v1/orphans lists all",
                            {{"what", key_of(orphan)}, {"reason", orphan.reason}});
    }
}

}  // namespace ghost::agent
