#include "storage/seed_image.hpp"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>

#include <sys/stat.h>

#include <array>
#include <memory>
#include <string_view>

namespace ghost::storage {
namespace {

using base::Result;

constexpr std::size_t sector = 2048;
constexpr std::size_t first_descriptor = 16;  // sector
constexpr std::string_view volume_date{"1970010100000000\0", 17};
constexpr std::string_view record_date{"\x46\x01\x01\0\0\0\0", 7};  // 1970-01-01

struct FreeArchive {
    void operator()(archive* handle) const { archive_write_free(handle); }
};
struct FreeEntry {
    void operator()(archive_entry* entry) const { archive_entry_free(entry); }
};

auto failed(archive* writer) {
    const char* const words = archive_error_string(writer);
    return base::fail(base::Errc::io_error,
                      fmt::format("cannot build the seed image: {}", words == nullptr ? "unknown reason" : words));
}

la_ssize_t append(archive*, void* image, const void* bytes, std::size_t length) {
    static_cast<std::string*>(image)->append(static_cast<const char*>(bytes), length);
    return static_cast<la_ssize_t>(length);
}

Result<void> add(archive* writer, const char* name, std::string_view content) {
    const std::unique_ptr<archive_entry, FreeEntry> entry{archive_entry_new()};
    archive_entry_set_pathname(entry.get(), name);
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(content.size()));
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    archive_entry_set_perm(entry.get(), 0400);
    archive_entry_set_mtime(entry.get(), 0, 0);
    archive_entry_set_atime(entry.get(), 0, 0);
    archive_entry_set_ctime(entry.get(), 0, 0);
    archive_entry_set_birthtime(entry.get(), 0, 0);
    if (archive_write_header(writer, entry.get()) != ARCHIVE_OK) return failed(writer);
    const auto written = archive_write_data(writer, content.data(), content.size());
    if (written < 0 || static_cast<std::size_t>(written) != content.size()) return failed(writer);
    return {};
}

std::size_t byte_at(std::string_view bytes, std::size_t offset) {
    return offset < bytes.size() ? static_cast<unsigned char>(bytes[offset]) : 0U;
}
std::size_t number_at(std::string_view bytes, std::size_t offset) {  // 32 bits, little-endian
    return byte_at(bytes, offset) | byte_at(bytes, offset + 1) << 8U | byte_at(bytes, offset + 2) << 16U |
           byte_at(bytes, offset + 3) << 24U;
}

// A directory record's date, and those in its Rock Ridge entry "TF".
void settle_record(std::string& image, std::size_t record) {
    const auto end = record + byte_at(image, record);
    if (end > image.size() || end < record + 34) return;
    image.replace(record + 18, record_date.size(), record_date);
    const auto name = byte_at(image, record + 32);
    auto entry = record + 33 + name + (name % 2 == 0 ? 1 : 0);
    while (entry + 4 <= end) {
        const auto length = byte_at(image, entry + 2);
        if (length < 4 || entry + length > end) return;
        if (std::string_view{image}.substr(entry, 2) == "TF")
            for (auto date = entry + 5; date + record_date.size() <= entry + length; date += record_date.size())
                image.replace(date, record_date.size(), record_date);
        entry += length;
    }
}

// The writer stamps the volume and its root directory with the time of day; the same files shall give the same bytes.
void settle_times(std::string& image) {
    for (auto at = first_descriptor * sector; at + sector <= image.size(); at += sector) {
        const auto type = byte_at(image, at);
        if (type == 255) {
            const auto note = at + sector;  // the writer's remark about itself, with a date
            if (std::string_view{image}.substr(note, 5) == "INFO ") image.replace(note, sector, sector, '\0');
            return;
        }
        if (type != 1 && type != 2) continue;
        for (const std::size_t date : {813U, 830U, 864U}) image.replace(at + date, volume_date.size(), volume_date);
        const auto root = at + 156;
        settle_record(image, root);
        const auto begin = number_at(image, root + 2) * sector;
        const auto end = begin + number_at(image, root + 10);
        for (auto record = begin; record < end && record < image.size();) {
            const auto length = byte_at(image, record);
            if (length != 0) settle_record(image, record);
            record += length != 0 ? length : sector - record % sector;  // records don't cross sectors
        }
    }
}

}  // namespace

Result<std::string> build_seed_image(const SeedFiles& files) {
    std::string image;
    const std::unique_ptr<archive, FreeArchive> writer{archive_write_new()};
    auto* const handle = writer.get();
    if (archive_write_set_format_iso9660(handle) != ARCHIVE_OK ||
        archive_write_set_options(
            handle, "iso9660:volume-id=cidata,iso9660:joliet,iso9660:rockridge=useful,iso9660:!pad") != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(handle, 1) != ARCHIVE_OK ||
        archive_write_open(handle, &image, nullptr, append, nullptr) != ARCHIVE_OK)
        return failed(handle);
    struct Part {
        const char* name;
        std::string_view content;
        bool needed;
    };
    const std::array parts{Part{"meta-data", files.meta_data, true}, Part{"user-data", files.user_data, true},
                           Part{"vendor-data", files.vendor_data, false},
                           Part{"network-config", files.network_config, false}};
    for (const auto& part : parts) {
        if (part.content.empty() && !part.needed) continue;
        if (auto added = add(handle, part.name, part.content); !added) return base::fail(std::move(added).error());
    }
    if (archive_write_close(handle) != ARCHIVE_OK) return failed(handle);
    settle_times(image);
    return image;
}

}  // namespace ghost::storage
