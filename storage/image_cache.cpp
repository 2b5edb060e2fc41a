#include "storage/image_cache.hpp"

#include "storage/qcow2_header.hpp"
#include "storage/qemu_img.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace ghost::storage {
namespace {

namespace asio = boost::asio;
using base::Errc;
using base::Result;

constexpr std::string_view temporary_prefix = ".import-";
constexpr std::string_view allowed = "allowed are qcow2, and raw when the format is said";

struct Checksum {
    std::string kind;  // "sha256" | "sha512"
    std::string hex;   // lower case
};

Result<Checksum> parse_checksum(std::string text) {
    std::ranges::transform(text, text.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    const auto colon = text.find(':');
    Checksum checksum{text.substr(0, colon), colon == std::string::npos ? "" : text.substr(colon + 1)};
    const auto length = checksum.kind == "sha256" ? 64U : checksum.kind == "sha512" ? 128U : 0U;
    if (length == 0 || checksum.hex.size() != length ||
        checksum.hex.find_first_not_of("0123456789abcdef") != std::string::npos)
        return base::fail(Errc::validation_failed,
                          "checksum: expected sha256:<64 hex digits> or sha512:<128 hex digits>");
    return checksum;
}

Result<void> compare(const std::optional<Checksum>& expected, const Copied& copied) {
    if (!expected) return {};
    const auto& actual = expected->kind == "sha512" ? copied.sha512 : copied.sha256;
    if (actual == expected->hex) return {};
    base::Error error{Errc::checksum_mismatch, "the image is not the one that the checksum names"};
    error.facts = {{"expected", expected->kind + ":" + expected->hex}, {"actual", expected->kind + ":" + actual}};
    return base::fail(std::move(error));
}

// The format to treat the file as, from what was said and what its first bytes show.
Result<std::string> choose_format(const std::optional<std::string>& said, std::string_view head) {
    const auto found = recognise_format(head);
    const auto refuse = [](std::string what) {
        return base::fail(Errc::invalid_image, fmt::format("{}; {}", std::move(what), allowed));
    };
    if (said && *said == "raw") {
        if (head.empty()) return refuse("the image is empty");
        // It would be taken for what it looks like wherever a format is guessed.
        if (found == "qcow2") return refuse("the image is said to be raw, but it is qcow2");
        return "raw";
    }
    if (found == "qcow2") return "qcow2";
    if (!found.empty()) return refuse(fmt::format("the image is in the format {}", found));
    if (said) return refuse("the image is said to be qcow2, but it isn't");
    return refuse("the image is in no known format (a raw disk has none)");
}

Result<void> check_head(std::string_view head, const std::string& format) {
    if (format != "qcow2") return {};
    const auto header = parse_qcow2_header(head);
    if (!header) return base::fail(header.error());
    return check_standalone(*header);
}

Result<void> check_info(const QemuImageInfo& info) {
    Qcow2Header seen;
    seen.backing_path = info.backing_path;
    seen.external_data = info.external_data;
    seen.encrypted = info.encrypted;
    seen.corrupt = info.corrupt;
    if (auto alone = check_standalone(seen); !alone) return alone;
    if (info.virtual_size > ImageCache::max_virtual_size || info.virtual_size == 0) {
        base::Error error{Errc::invalid_image, fmt::format("the disk in the image has {} bytes; allowed are 1 to {}",
                                                           info.virtual_size, ImageCache::max_virtual_size)};
        error.facts = {{"virtual_size", info.virtual_size}, {"max_virtual_size", ImageCache::max_virtual_size}};
        return base::fail(std::move(error));
    }
    return {};
}

// One import, from its temporary file to the blob.
class Import {
public:
    Import(const ImageCache& cache, Files& files, base::ProcessRunner& processes, ImportRequest request,
           std::function<void(const ImportProgress&)> progress)
        : cache_(cache),
          files_(files),
          qemu_(processes),
          request_(std::move(request)),
          progress_(std::move(progress)),
          temporary_(fmt::format("{}/{}{}", cache.directory(), temporary_prefix, request_.work_name)) {}

    asio::awaitable<Result<Blob>> run() {
        if (auto valid = validate(); !valid) co_return base::fail(std::move(valid).error());
        if (auto looked = co_await look_at_source(); !looked) co_return base::fail(std::move(looked).error());
        auto blob = co_await make_blob();
        // A cancellation that came late, with nothing left to interrupt, changes nothing.
        if (!blob) static_cast<void>(co_await files_.remove(temporary_));  // what's left is cleared at the next start
        co_return blob;
    }

private:
    Result<void> validate() {
        const auto& name = request_.work_name;
        if (name.empty() || name.find('/') != std::string::npos || name.find('\0') != std::string::npos)
            return base::fail(Errc::internal, "an import's work name must be a file name");
        if (!request_.source.starts_with('/') || request_.source.find('\0') != std::string::npos)
            return base::fail(Errc::validation_failed, "source: expected an absolute path");
        if (request_.format && *request_.format != "raw" && *request_.format != "qcow2")
            return base::fail(Errc::validation_failed,
                              fmt::format("format: '{}' is not supported; {}", *request_.format, allowed));
        if (!request_.checksum) return {};
        auto checksum = parse_checksum(*request_.checksum);
        if (!checksum) return base::fail(std::move(checksum).error());
        checksum_ = std::move(*checksum);
        return {};
    }

    void report(std::string phase, std::uint64_t done, std::uint64_t total) const {
        if (progress_) progress_({std::move(phase), done, total});
    }

    asio::awaitable<Result<void>> stopped() const {
        const auto state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() != asio::cancellation_type::none)
            co_return base::fail(Errc::cancelled, "the import was cancelled");
        co_return Result<void>{};
    }

    // Spares the copying of what would be refused anyway; the copy is looked at again, for the source may change.
    asio::awaitable<Result<void>> look_at_source() {
        const auto found = co_await files_.stat(request_.source);
        if (!found) co_return base::fail(found.error());
        if (!*found) co_return base::fail(Errc::not_found, request_.source + " does not exist");
        if (!(*found)->regular) co_return base::fail(Errc::invalid_image, request_.source + " is not a regular file");
        if (request_.room)
            if (auto room = request_.room((*found)->size); !room) co_return room;
        report("inspecting", 0, (*found)->size);
        co_return co_await inspect_head(request_.source);
    }

    asio::awaitable<Result<void>> inspect_head(std::string path) {
        const auto head = co_await files_.read_head(path, image_head_size);
        if (!head) co_return base::fail(head.error());
        auto format = choose_format(request_.format, *head);
        if (!format) co_return base::fail(std::move(format).error());
        format_ = std::move(*format);
        co_return check_head(*head, format_);
    }

    asio::awaitable<Result<Blob>> make_blob() {
        if (auto go = co_await stopped(); !go) co_return base::fail(std::move(go).error());
        const auto copied = co_await copy();
        if (!copied) co_return base::fail(copied.error());
        if (auto same = compare(checksum_, *copied); !same) co_return base::fail(std::move(same).error());
        report("checking", copied->size, copied->size);
        const auto virtual_size = co_await check();
        if (!virtual_size) co_return base::fail(virtual_size.error());
        if (auto go = co_await stopped(); !go) co_return base::fail(std::move(go).error());
        Blob blob{"sha256:" + copied->sha256, {}, format_, copied->size, *virtual_size};
        blob.path = cache_.path_of(blob.digest, format_);
        if (request_.announce)
            if (auto announced = co_await request_.announce(blob); !announced)
                co_return base::fail(std::move(announced).error());
        if (auto kept = co_await keep(blob); !kept) co_return base::fail(std::move(kept).error());
        co_return blob;
    }

    asio::awaitable<Result<Copied>> copy() {
        CopyOptions options;
        options.mode = 0444;
        options.sha512 = checksum_ && checksum_->kind == "sha512";
        if (progress_)
            options.progress = [this](std::uint64_t done, std::uint64_t total) { report("copying", done, total); };
        co_return co_await files_.copy(request_.source, temporary_, std::move(options));
    }

    // The disk's size in bytes. No tool opens the copy before its header was read here.
    asio::awaitable<Result<std::uint64_t>> check() {
        if (auto head = co_await inspect_head(temporary_); !head) co_return base::fail(std::move(head).error());
        const auto info = co_await qemu_.info(temporary_, format_);
        if (!info) co_return base::fail(named(info.error()));
        if (auto fine = check_info(*info); !fine) co_return base::fail(std::move(fine).error());
        if (format_ == "qcow2")
            if (auto sound = co_await qemu_.check(temporary_); !sound)
                co_return base::fail(named(std::move(sound).error()));
        co_return info->virtual_size;
    }

    // A blob that is there already stays: it is the same bytes, and disks may stand on it.
    asio::awaitable<Result<void>> keep(const Blob& blob) {
        const auto old = co_await files_.stat(blob.path);
        if (!old) co_return base::fail(old.error());
        if (*old && (*old)->regular && (*old)->size == blob.size) co_return co_await files_.remove(temporary_);
        co_return co_await files_.rename(temporary_, blob.path);
    }

    // People know the source, not our temporary file.
    base::Error named(base::Error error) const {
        for (auto at = error.detail.find(temporary_); at != std::string::npos; at = error.detail.find(temporary_, at))
            error.detail.replace(at, temporary_.size(), "image");
        return error;
    }

    const ImageCache& cache_;
    Files& files_;
    QemuImg qemu_;
    ImportRequest request_;
    std::function<void(const ImportProgress&)> progress_;
    std::string temporary_;
    std::optional<Checksum> checksum_;
    std::string format_;
};

}  // namespace

ImageCache::ImageCache(std::string directory, Files& files, base::ProcessRunner& processes)
    : directory_(std::move(directory)), files_(files), processes_(processes) {}

asio::awaitable<Result<void>> ImageCache::open() {
    if (auto made = co_await files_.make_directories(directory_, 0755); !made) co_return made;
    const auto names = co_await files_.list(directory_);
    if (!names) co_return base::fail(names.error());
    for (const auto& name : *names) {
        if (!name.starts_with(temporary_prefix)) continue;
        if (auto removed = co_await files_.remove(directory_ + "/" + name); !removed) co_return removed;
    }
    co_return Result<void>{};
}

asio::awaitable<Result<Blob>> ImageCache::import(ImportRequest request,
                                                 std::function<void(const ImportProgress&)> progress) {
    // Cleaning up must be possible after a cancellation; the caller's wish comes back at the end.
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    Import import{*this, files_, processes_, std::move(request), std::move(progress)};
    auto blob = co_await import.run();
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return blob;
}

asio::awaitable<Result<void>> ImageCache::remove(std::string digest, std::string format) {
    co_return co_await files_.remove(path_of(digest, format));
}

std::string ImageCache::path_of(const std::string& digest, const std::string& format) const {
    const auto colon = digest.find(':');
    const auto hex = colon == std::string::npos ? digest : digest.substr(colon + 1);
    return fmt::format("{}/{}.{}", directory_, hex, format);
}

}  // namespace ghost::storage
