#include "agent/vm/disk_chains.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr int deepest_chain = 256;  // QEMU gives up before

std::string_view file_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

void FilesInUse::add(std::string_view path) { names_.emplace(file_name(path)); }

bool FilesInUse::contains(std::string_view path) const { return names_.contains(file_name(path)); }

asio::awaitable<base::Result<FilesInUse>> DiskChains::files_in_use(std::string directory,
                                                                   std::set<std::string> nobodys) {
    if (!observer_.synced())
        co_return base::fail(base::Errc::hypervisor_unavailable,
                             "the hypervisor's domains aren't known, and neither is what their disks stand on");
    auto disks = co_await hypervisor_.disk_files();
    if (!disks) co_return base::fail(std::move(disks).error());
    FilesInUse found;
    Followed followed;
    const auto note = [&found](base::Result<void> told) {
        if (!told && !found.unknown) found.unknown = std::move(told).error();
    };
    for (auto& disk : *disks) note(co_await add_chain(std::move(disk), found, followed));
    if (directory.empty()) co_return found;
    const auto names = co_await files_.list(directory);
    if (!names && names.error().code == base::Errc::not_found) co_return found;
    if (!names) co_return base::fail(names.error());
    for (const auto& name : *names) {
        auto path = fmt::format("{}/{}", directory, name);
        if (!name.ends_with(".qcow2") || nobodys.contains(path)) continue;
        const auto next = co_await below({std::move(path), "qcow2"});
        // One that is being made has no whole header yet; what it will stand on is its VM's.
        if (!next && next.error().code != base::Errc::invalid_image) note(base::fail(next.error()));
        if (next && *next) note(co_await add_chain(**next, found, followed));
    }
    co_return found;
}

asio::awaitable<base::Result<void>> DiskChains::add_chain(virt::DiskFile disk, FilesInUse& found, Followed& followed) {
    for (int depth = 0; depth < deepest_chain; ++depth) {
        if (!followed.insert(disk).second) co_return base::Result<void>{};
        found.add(disk.path);
        // By whatever link it is named, it is one file.
        if (const auto real = co_await files_.resolve(disk.path)) found.add(*real);
        auto next = co_await below(disk);
        if (!next) co_return base::fail(std::move(next).error());
        if (!*next) co_return base::Result<void>{};
        disk = std::move(**next);
    }
    co_return base::fail(base::Errc::io_error, "the chain of backing files of " + disk.path + " is too long");
}

// What a disk stands on; nothing if it isn't there.
asio::awaitable<base::Result<std::optional<virt::DiskFile>>> DiskChains::below(virt::DiskFile disk) {
    // What its guest wrote into a raw disk is no header to heed.
    if (disk.format == "raw") co_return std::nullopt;
    const auto file = co_await files_.stat(disk.path);
    if (!file) co_return base::fail(file.error());
    if (!file->has_value() || (!(*file)->regular && disk.format != "qcow2")) co_return std::nullopt;
    auto backing = co_await volumes_.backing_of(disk.path);
    if (!backing && backing.error().code == base::Errc::not_found) co_return std::nullopt;
    if (!backing) co_return base::fail(std::move(backing).error());
    if (!*backing) co_return std::nullopt;
    co_return virt::DiskFile{std::move((*backing)->path), std::move((*backing)->format)};
}

}  // namespace ghost::agent
