#include "storage/image_check.hpp"

#include "storage/qcow2_header.hpp"
#include "storage/qemu_img.hpp"

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace ghost::storage {
namespace {

namespace asio = boost::asio;
using base::Errc;
using base::Result;

constexpr std::string_view allowed = "allowed are qcow2, and raw when the format is said";

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
    if (info.virtual_size > max_virtual_size || info.virtual_size == 0) {
        base::Error error{Errc::invalid_image, fmt::format("the disk in the image has {} bytes; allowed are 1 to {}",
                                                           info.virtual_size, max_virtual_size)};
        error.facts = {{"virtual_size", info.virtual_size}, {"max_virtual_size", max_virtual_size}};
        return base::fail(std::move(error));
    }
    return {};
}

// People know the source, not our temporary file.
base::Error without_path(base::Error error, const std::string& path) {
    for (auto at = error.detail.find(path); at != std::string::npos; at = error.detail.find(path, at))
        error.detail.replace(at, path.size(), "image");
    return error;
}

}  // namespace

Result<void> check_format_name(const std::optional<std::string>& said) {
    if (!said || *said == "raw" || *said == "qcow2") return {};
    return base::fail(Errc::validation_failed, fmt::format("format: '{}' is not supported; {}", *said, allowed));
}

asio::awaitable<Result<std::string>> inspect_head(Files& files, std::string path, std::optional<std::string> said) {
    const auto head = co_await files.read_head(path, image_head_size);
    if (!head) co_return base::fail(head.error());
    auto format = choose_format(said, *head);
    if (!format) co_return format;
    if (auto fine = check_head(*head, *format); !fine) co_return base::fail(std::move(fine).error());
    co_return format;
}

asio::awaitable<Result<CheckedImage>> check_image(Files& files, base::ProcessRunner& processes, std::string path,
                                                  std::optional<std::string> said) {
    auto format = co_await inspect_head(files, path, std::move(said));
    if (!format) co_return base::fail(std::move(format).error());
    QemuImg qemu{processes};
    const auto info = co_await qemu.info(path, *format);
    if (!info) co_return base::fail(without_path(info.error(), path));
    if (auto fine = check_info(*info); !fine) co_return base::fail(std::move(fine).error());
    if (*format == "qcow2")
        if (auto sound = co_await qemu.check(path); !sound)
            co_return base::fail(without_path(std::move(sound).error(), path));
    co_return CheckedImage{*std::move(format), info->virtual_size};
}

}  // namespace ghost::storage
