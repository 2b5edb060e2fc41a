#include "storage/qemu_img.hpp"

#include <boost/json/parse.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace ghost::storage {
namespace {

using base::Errc;
using base::Result;
namespace json = boost::json;

constexpr std::uint64_t address_space = 1ULL << 30;
constexpr std::chrono::seconds short_deadline{60};
constexpr std::chrono::seconds check_deadline{600};

Result<void> acceptable(std::string_view path) {
    if (!path.starts_with('/') || path.find('\0') != std::string_view::npos)
        return base::fail(Errc::validation_failed, fmt::format("'{}' is not an absolute path", path));
    return {};
}

// The sentence in what it wrote: "qemu-img: Could not open 'x': y" loses its first word, and there may be several
// lines.
std::string words_of(const base::Exit& exit) {
    constexpr std::string_view prefix = "qemu-img: ";
    std::string_view text = exit.error;
    if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
    text = text.substr(0, std::min<std::size_t>(text.size(), 500));
    while (text.ends_with('\n')) text.remove_suffix(1);
    std::string sentence{text};
    std::ranges::replace(sentence, '\n', ' ');
    return sentence.empty() ? fmt::format("qemu-img ended with status {}", exit.status) : sentence;
}

struct Meaning {
    std::string_view words;
    Errc code;
};
constexpr std::array meanings{
    Meaning{"No space left on device", Errc::insufficient_storage},
    Meaning{"Disk quota exceeded", Errc::insufficient_storage},
    Meaning{"Failed to get \"", Errc::state_conflict},  // ... "write" lock
    Meaning{"Is another process using the image", Errc::state_conflict},
    Meaning{"Image is not in", Errc::invalid_image},
    Meaning{"Unsupported qcow2 version", Errc::invalid_image},
    Meaning{"qcow2 header", Errc::invalid_image},
    Meaning{"Image is corrupt", Errc::invalid_image},
    Meaning{"Unsupported", Errc::invalid_image},
};

base::Error error_of(const base::Exit& exit) {
    auto words = words_of(exit);
    const auto* const known = std::ranges::find_if(
        meanings, [&](const Meaning& meaning) { return words.find(meaning.words) != std::string::npos; });
    return {known == meanings.end() ? Errc::io_error : known->code, std::move(words)};
}

Result<json::object> parse_object(const std::string& text) {
    json::error_code ec;
    json::parse_options options;
    options.max_depth = 16;
    auto value = json::parse(text, ec, {}, options);
    if (ec || !value.is_object()) return base::fail(Errc::io_error, "qemu-img's answer is not understood");
    return std::move(value.get_object());
}

std::string text_in(const json::object& object, std::string_view key) {
    const auto* const value = object.if_contains(key);
    return value != nullptr && value->is_string() ? std::string{value->get_string()} : std::string{};
}

bool flag_in(const json::object& object, std::string_view key) {
    const auto* const value = object.if_contains(key);
    return value != nullptr && value->is_bool() && value->get_bool();
}

std::optional<std::uint64_t> count_in(const json::object& object, std::string_view key) {
    const auto* const value = object.if_contains(key);
    if (value == nullptr) return std::nullopt;
    json::error_code ec;
    const auto number = value->to_number<std::uint64_t>(ec);
    return ec ? std::nullopt : std::optional{number};
}

Result<QemuImageInfo> read_info(const std::string& text) {
    const auto answer = parse_object(text);
    if (!answer) return base::fail(answer.error());
    QemuImageInfo info;
    info.format = text_in(*answer, "format");
    const auto size = count_in(*answer, "virtual-size");
    if (info.format.empty() || !size) return base::fail(Errc::io_error, "qemu-img's answer lacks a format or a size");
    info.virtual_size = *size;
    info.backing_path = text_in(*answer, "full-backing-filename");
    if (info.backing_path.empty()) info.backing_path = text_in(*answer, "backing-filename");
    info.backing_format = text_in(*answer, "backing-filename-format");
    info.encrypted = flag_in(*answer, "encrypted");
    if (const auto* specific = answer->if_contains("format-specific"); specific != nullptr && specific->is_object())
        if (const auto* data = specific->get_object().if_contains("data"); data != nullptr && data->is_object()) {
            info.external_data = data->get_object().contains("data-file");
            info.corrupt = flag_in(data->get_object(), "corrupt");
        }
    return info;
}

}  // namespace

QemuImg::Task<base::Exit> QemuImg::run(std::vector<std::string> arguments, std::chrono::seconds deadline) {
    base::Command command;
    command.argv = {"qemu-img"};
    command.argv.insert(command.argv.end(), std::make_move_iterator(arguments.begin()),
                        std::make_move_iterator(arguments.end()));
    command.deadline = deadline;
    command.limits.address_space = address_space;
    command.limits.cpu_seconds = static_cast<std::uint64_t>(deadline.count());
    auto exit = co_await processes_.run(std::move(command));
    if (!exit && exit.error().code == Errc::not_found)
        exit = base::fail(Errc::io_error, "qemu-img is not installed (package qemu-utils)");
    co_return exit;
}

QemuImg::Task<QemuImageInfo> QemuImg::info(std::string path, std::string format) {
    if (auto may = acceptable(path); !may) co_return base::fail(std::move(may).error());
    auto exit = co_await run({"info", "--output=json", "-U", "-f", format, "--", path}, short_deadline);
    if (!exit) co_return base::fail(std::move(exit).error());
    if (exit->status != 0) co_return base::fail(error_of(*exit));
    co_return read_info(exit->output);
}

QemuImg::Task<void> QemuImg::check(std::string path) {
    if (auto may = acceptable(path); !may) co_return may;
    auto exit = co_await run({"check", "--output=json", "-f", "qcow2", "--", path}, check_deadline);
    if (!exit) co_return base::fail(std::move(exit).error());
    constexpr int corrupt = 2;
    constexpr int leaked = 3;
    if (exit->status == 0 || exit->status == leaked) co_return Result<void>{};
    if (exit->status != corrupt) {
        auto error = error_of(*exit);
        if (error.code == Errc::io_error) error.code = Errc::invalid_image;
        co_return base::fail(std::move(error));
    }
    const auto report = parse_object(exit->output);
    const auto count = report ? count_in(*report, "corruptions").value_or(0) : 0;
    co_return base::fail(Errc::invalid_image,
                         fmt::format("the image is corrupt: {} faults found by qemu-img check", count));
}

QemuImg::Task<void> QemuImg::create(QemuCreate what) {
    std::vector<std::string> arguments{"create", "-q", "-f", "qcow2"};
    if (!what.backing_path.empty()) {
        if (auto may = acceptable(what.backing_path); !may) co_return may;
        arguments.insert(arguments.end(), {"-b", what.backing_path, "-F", what.backing_format});
    }
    if (auto may = acceptable(what.path); !may) co_return may;
    arguments.insert(arguments.end(), {"--", what.path, std::to_string(what.virtual_size)});
    auto exit = co_await run(std::move(arguments), short_deadline);
    if (!exit) co_return base::fail(std::move(exit).error());
    if (exit->status != 0) co_return base::fail(error_of(*exit));
    co_return Result<void>{};
}

QemuImg::Task<void> QemuImg::resize(std::string path, std::uint64_t virtual_size) {
    if (auto may = acceptable(path); !may) co_return may;
    auto exit = co_await run({"resize", "-q", "-f", "qcow2", "--", path, std::to_string(virtual_size)}, short_deadline);
    if (!exit) co_return base::fail(std::move(exit).error());
    if (exit->status != 0) co_return base::fail(error_of(*exit));
    co_return Result<void>{};
}

}  // namespace ghost::storage
