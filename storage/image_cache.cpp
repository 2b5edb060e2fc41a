#include "storage/image_cache.hpp"

#include "storage/part_record.hpp"
#include "storage/signature.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>
#include <utility>

namespace ghost::storage {
namespace {

namespace asio = boost::asio;
using base::Errc;
using base::Result;

constexpr std::string_view import_prefix = ".import-";
constexpr std::string_view part_prefix = ".download-";
constexpr std::string_view part_suffix = ".part";
constexpr std::string_view record_suffix = ".part.json";
constexpr std::size_t digest_length = 64;

bool is_file_name(std::string_view name) {
    return !name.empty() && name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

// One image, from its temporary file to the blob.
class Taking {
public:
    Taking(const ImageCache& cache, Files& files, base::ProcessRunner& processes, TakeIn what, OnProgress progress,
           std::string temporary)
        : cache_(cache),
          files_(files),
          processes_(processes),
          what_(std::move(what)),
          progress_(std::move(progress)),
          temporary_(std::move(temporary)) {}

    asio::awaitable<Result<Blob>> import(std::string source) {
        if (auto valid = validate(); !valid) co_return base::fail(std::move(valid).error());
        if (auto looked = co_await look_at(source); !looked) co_return base::fail(std::move(looked).error());
        auto blob = co_await copied_blob(std::move(source));
        // A cancellation that came late, with nothing left to interrupt, changes nothing.
        if (!blob) static_cast<void>(co_await files_.remove(temporary_));  // what's left is cleared at the next start
        co_return blob;
    }

    asio::awaitable<Result<Blob>> fetch(Fetcher& fetcher, std::vector<std::string> urls) {
        if (auto valid = validate(); !valid) co_return base::fail(std::move(valid).error());
        FetchRequest request{std::move(urls), checksum_, temporary_, what_.room, {}};
        request.progress = [this](const FetchProgress& p) { report(p.phase, p.done, p.total); };
        const auto copied = co_await fetcher.fetch(std::move(request));
        auto blob = copied ? co_await checked_blob(*copied) : Result<Blob>{base::fail(copied.error())};
        // The next fetch would end in the same.
        const bool worthless =
            !blob && (blob.error().code == Errc::invalid_image || blob.error().code == Errc::checksum_mismatch);
        if (worthless || blob) static_cast<void>(co_await remove_part_files(files_, temporary_));
        co_return blob;
    }

private:
    Result<void> validate() {
        if (!is_file_name(what_.work_name))
            return base::fail(Errc::internal, "an image's work name must be a file name");
        if (auto fine = check_format_name(what_.format); !fine) return fine;
        if (!what_.checksum) return {};
        auto checksum = parse_checksum(*what_.checksum);
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
    asio::awaitable<Result<void>> look_at(std::string source) {
        if (!source.starts_with('/') || source.find('\0') != std::string::npos)
            co_return base::fail(Errc::validation_failed, "source: expected an absolute path");
        const auto found = co_await files_.stat(source);
        if (!found) co_return base::fail(found.error());
        if (!*found) co_return base::fail(Errc::not_found, source + " does not exist");
        if (!(*found)->regular) co_return base::fail(Errc::invalid_image, source + " is not a regular file");
        if (what_.room)
            if (auto room = co_await what_.room((*found)->size); !room) co_return room;
        report("inspecting", 0, (*found)->size);
        const auto format = co_await inspect_head(files_, std::move(source), what_.format);
        if (!format) co_return base::fail(format.error());
        co_return Result<void>{};
    }

    asio::awaitable<Result<Blob>> copied_blob(std::string source) {
        if (auto go = co_await stopped(); !go) co_return base::fail(std::move(go).error());
        CopyOptions options;
        options.mode = 0444;
        options.sha512 = checksum_ && checksum_->kind == "sha512";
        if (progress_)
            options.progress = [this](std::uint64_t done, std::uint64_t total) { report("copying", done, total); };
        const auto copied = co_await files_.copy(std::move(source), temporary_, std::move(options));
        if (!copied) co_return base::fail(copied.error());
        if (checksum_)
            if (auto same = compare(*checksum_, *copied); !same) co_return base::fail(std::move(same).error());
        co_return co_await checked_blob(*copied);
    }

    asio::awaitable<Result<Blob>> checked_blob(Copied copied) {
        report("checking", copied.size, copied.size);
        const auto checked = co_await check_image(files_, processes_, temporary_, what_.format);
        if (!checked) co_return base::fail(checked.error());
        if (auto go = co_await stopped(); !go) co_return base::fail(std::move(go).error());
        Blob blob{"sha256:" + copied.sha256, {}, checked->format, copied.size, checked->virtual_size};
        blob.path = cache_.path_of(blob.digest, blob.format);
        if (what_.announce)
            if (auto announced = co_await what_.announce(blob); !announced)
                co_return base::fail(std::move(announced).error());
        if (auto kept = co_await keep(blob); !kept) co_return base::fail(std::move(kept).error());
        co_return blob;
    }

    // A blob that is there already stays: it is the same bytes, and disks may stand on it.
    asio::awaitable<Result<void>> keep(const Blob& blob) {
        const auto old = co_await files_.stat(blob.path);
        if (!old) co_return base::fail(old.error());
        if (*old && (*old)->regular && (*old)->size == blob.size) co_return co_await files_.remove(temporary_);
        co_return co_await files_.rename(temporary_, blob.path);
    }

    const ImageCache& cache_;
    Files& files_;
    base::ProcessRunner& processes_;
    TakeIn what_;
    OnProgress progress_;
    std::string temporary_;
    std::optional<Checksum> checksum_;
};

}  // namespace

ImageCache::ImageCache(std::string directory, Files& files, base::ProcessRunner& processes, Fetcher& fetcher)
    : directory_(std::move(directory)), files_(files), processes_(processes), fetcher_(fetcher) {}

asio::awaitable<Result<void>> ImageCache::open() {
    if (auto made = co_await files_.make_directories(directory_, 0755); !made) co_return made;
    const auto names = co_await files_.list(directory_);
    if (!names) co_return base::fail(names.error());
    const auto is_left_over = [&names](std::string_view name) {
        if (name.starts_with(import_prefix) || name.starts_with(Signatures::prefix)) return true;
        // A write's temporary, .NAME.new, of one of ours, which begin with a dot themselves.
        if (name.starts_with("..") && name.ends_with(".new")) return true;
        // What is known of a download that isn't there.
        const bool record = name.starts_with(part_prefix) && name.ends_with(record_suffix);
        const auto part = name.substr(0, name.rfind('.'));
        return record && std::ranges::find(*names, part) == names->end();
    };
    for (const auto& name : *names) {
        if (!is_left_over(name)) continue;
        if (auto removed = co_await files_.remove(directory_ + "/" + name); !removed) co_return removed;
    }
    co_return Result<void>{};
}

asio::awaitable<Result<Blob>> ImageCache::import(std::string source, TakeIn what, OnProgress progress) {
    // Cleaning up must be possible after a cancellation; the caller's wish comes back at the end.
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    auto temporary = fmt::format("{}/{}{}", directory_, import_prefix, what.work_name);
    Taking taking{*this, files_, processes_, std::move(what), std::move(progress), std::move(temporary)};
    auto blob = co_await taking.import(std::move(source));
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return blob;
}

asio::awaitable<Result<Blob>> ImageCache::fetch(std::vector<std::string> urls, TakeIn what, OnProgress progress) {
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    auto part = part_of(what.work_name);
    Taking taking{*this, files_, processes_, std::move(what), std::move(progress), std::move(part)};
    auto blob = co_await taking.fetch(fetcher_, std::move(urls));
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return blob;
}

asio::awaitable<Result<void>> ImageCache::forget_fetch(std::string work_name) {
    co_return co_await remove_part_files(files_, part_of(work_name));
}

asio::awaitable<Result<void>> ImageCache::remove(std::string digest, std::string format) {
    co_return co_await files_.remove(path_of(digest, format));
}

std::string ImageCache::path_of(const std::string& digest, const std::string& format) const {
    const auto colon = digest.find(':');
    const auto hex = colon == std::string::npos ? digest : digest.substr(colon + 1);
    return fmt::format("{}/{}.{}", directory_, hex, format);
}

std::string ImageCache::part_of(const std::string& work_name) const {
    return fmt::format("{}/{}{}{}", directory_, part_prefix, work_name, part_suffix);
}

asio::awaitable<Result<ImageCache::Content>> ImageCache::content() {
    const auto names = co_await files_.list(directory_);
    if (!names) co_return base::fail(names.error());
    Content content;
    for (const auto& name : *names) {
        const auto path = directory_ + "/" + name;
        const auto file = co_await files_.stat(path);
        if (!file) co_return base::fail(file.error());
        if (!*file || !(*file)->regular) continue;
        const auto bytes = (*file)->allocated;
        const auto dot = name.find('.', 1);
        if (name.starts_with(part_prefix) && name.ends_with(part_suffix)) {
            const auto kept = co_await read_part_record(files_, path);
            const auto length = name.size() - part_prefix.size() - part_suffix.size();
            content.parts.push_back({name.substr(part_prefix.size(), length), bytes, kept ? kept->at : base::Wall{}});
        } else if (dot == digest_length && name.find_first_not_of("0123456789abcdef") == dot) {
            content.blobs.push_back({"sha256:" + name.substr(0, dot), name.substr(dot + 1), bytes});
        }
    }
    co_return content;
}

std::uint64_t ImageCache::Content::bytes() const noexcept {
    const auto sum = [](const auto& files) {
        return std::accumulate(files.begin(), files.end(), std::uint64_t{0},
                               [](std::uint64_t all, const auto& file) { return all + file.bytes; });
    };
    return sum(blobs) + sum(parts);
}

}  // namespace ghost::storage
