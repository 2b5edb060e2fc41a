#include "storage/volumes.hpp"

#include "storage/qcow2_header.hpp"
#include "storage/qemu_img.hpp"

#include <boost/asio/this_coro.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <fmt/format.h>

#include <filesystem>
#include <utility>

namespace ghost::storage {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using base::Errc;
using base::Result;

constexpr unsigned volume_mode = 0600;

// What a message about a full file system should say and qemu-img doesn't. `needed` is what an empty volume takes at
// least.
asio::awaitable<base::Error> with_space(Files& files, std::string path, base::Error error) {
    if (error.code != Errc::insufficient_storage || error.facts.contains("free")) co_return error;
    constexpr std::uint64_t empty_volume = 256 * 1024;
    const auto space = co_await files.space(std::filesystem::path{path}.parent_path().string());
    base::add_disk_facts(error, empty_volume, space ? std::optional{space->free} : std::nullopt);
    co_return error;
}

asio::awaitable<Result<void>> create_steps(Files& files, QemuImg qemu, const QemuCreate& what) {
    const auto found = co_await files.stat(what.path);
    if (!found) co_return base::fail(found.error());
    if (*found) co_return base::fail(Errc::already_exists, what.path + " exists already");
    // Made here first, so that nobody else can read it at any moment: qemu-img keeps the mode of what is there.
    auto made = co_await files.write(what.path, {}, volume_mode);
    if (made) made = co_await qemu.create(what);
    if (made) co_return made;
    static_cast<void>(co_await files.remove(what.path));  // what's left has no owner and is found as an orphan
    co_return base::fail(co_await with_space(files, what.path, std::move(made).error()));
}

asio::awaitable<Result<void>> create(Files& files, base::ProcessRunner& processes, QemuCreate what) {
    if (what.virtual_size == 0) co_return base::fail(Errc::validation_failed, "a volume has at least one byte");
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    auto made = co_await create_steps(files, QemuImg{processes}, what);
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return made;
}

// "file.filename" and "filename", at any depth of QEMU's json: names.
std::optional<std::string> filename_in(const json::value& value) {
    if (!value.is_object()) return std::nullopt;
    for (const auto& member : value.get_object()) {
        const std::string_view key = member.key();
        const bool named = key == "filename" || key.ends_with(".filename");
        if (named && member.value().is_string()) return std::string{member.value().get_string()};
        if (auto deeper = filename_in(member.value())) return deeper;
    }
    return std::nullopt;
}

// The path in the name of a backing file as QEMU reads it: a path, file:path, or json:{...}; empty: "nbd://..." and the
// like.
Result<std::string> local_file(const std::string& name) {
    constexpr std::string_view file = "file:";
    constexpr std::string_view document = "json:";
    if (name.starts_with(file)) return name.substr(file.size());
    if (name.starts_with(document)) {
        json::error_code fault;
        const auto parsed = json::parse(std::string_view{name}.substr(document.size()), fault);
        if (fault) return base::fail(Errc::invalid_image, "the name of its backing file can't be read");
        return filename_in(parsed).value_or("");
    }
    const auto colon = name.find(':');
    const bool has_protocol = colon != std::string::npos && colon < name.find('/');
    return has_protocol ? std::string{} : name;
}

}  // namespace

asio::awaitable<Result<void>> Volumes::create_overlay(std::string path, std::string backing, std::string backing_format,
                                                      std::uint64_t virtual_size) {
    if (backing.empty() || (backing_format != "qcow2" && backing_format != "raw"))
        co_return base::fail(Errc::validation_failed, "an overlay needs a backing file and its format, qcow2 or raw");
    QemuCreate what{std::move(path), virtual_size, std::move(backing), std::move(backing_format)};
    co_return co_await create(files_, processes_, std::move(what));
}

asio::awaitable<Result<void>> Volumes::create_blank(std::string path, std::uint64_t virtual_size) {
    QemuCreate what{std::move(path), virtual_size, {}, {}};
    co_return co_await create(files_, processes_, std::move(what));
}

asio::awaitable<Result<void>> Volumes::grow(std::string path, std::uint64_t virtual_size) {
    const auto now = co_await inspect(path);
    if (!now) co_return base::fail(now.error());
    if (virtual_size < now->virtual_size)
        co_return base::fail(
            Errc::validation_failed,
            fmt::format("a disk only grows: it has {} bytes, asked for are {}", now->virtual_size, virtual_size));
    if (virtual_size == now->virtual_size) co_return Result<void>{};
    auto grown = co_await QemuImg{processes_}.resize(path, virtual_size);
    if (!grown) co_return base::fail(co_await with_space(files_, path, std::move(grown).error()));
    co_return grown;
}

asio::awaitable<Result<VolumeInfo>> Volumes::inspect(std::string path) {
    const auto found = co_await files_.stat(path);
    if (!found) co_return base::fail(found.error());
    if (!*found) co_return base::fail(Errc::not_found, path + " does not exist");
    auto info = co_await QemuImg{processes_}.info(path, "qcow2");
    if (!info) co_return base::fail(std::move(info).error());
    co_return VolumeInfo{std::move(info->format), info->virtual_size, std::move(info->backing_path),
                         std::move(info->backing_format)};
}

asio::awaitable<Result<void>> Volumes::remove(std::string path) { co_return co_await files_.remove(std::move(path)); }

asio::awaitable<Result<std::uint64_t>> Volumes::size_of(std::string path, std::string format) {
    const auto file = co_await files_.stat(path);
    if (!file) co_return base::fail(file.error());
    if (!*file) co_return base::fail(Errc::not_found, path + " does not exist");
    if (!(*file)->regular) co_return std::uint64_t{0};
    if (format != "qcow2") co_return (*file)->size;
    const auto head = co_await files_.read_head(path, image_head_size);
    if (!head) co_return base::fail(head.error());
    const auto header = parse_qcow2_header(*head);
    if (!header) co_return base::fail(header.error().code, fmt::format("{}: {}", path, header.error().detail));
    co_return header->virtual_size;
}

asio::awaitable<Result<std::optional<Volumes::Backing>>> Volumes::backing_of(std::string path) {
    const auto head = co_await files_.read_head(path, image_head_size);
    if (!head) co_return base::fail(head.error());
    if (recognise_format(*head) != "qcow2") co_return std::nullopt;
    const auto header = parse_qcow2_header(*head);
    if (!header) co_return base::fail(header.error().code, fmt::format("{}: {}", path, header.error().detail));
    if (header->backing_path.empty()) co_return std::nullopt;
    auto local = local_file(header->backing_path);
    if (!local) co_return base::fail(local.error().code, fmt::format("{}: {}", path, local.error().detail));
    if (local->empty()) co_return std::nullopt;
    // What is relative is so to the file that names it.
    const auto whole = (std::filesystem::path{path}.parent_path() / *local).lexically_normal().string();
    co_return Backing{whole, header->backing_format};
}

}  // namespace ghost::storage
