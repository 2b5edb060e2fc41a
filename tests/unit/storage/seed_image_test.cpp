#include "storage/seed_image.hpp"

#include <archive.h>
#include <archive_entry.h>
#include <catch2/catch.hpp>

#include <array>
#include <map>
#include <memory>

using namespace ghost;

namespace {

// What a reader finds: Rock Ridge and Joliet names are preferred by it, in turn.
std::map<std::string, std::string> contents_of(const std::string& image, const char* options) {
    const std::unique_ptr<archive, int (*)(archive*)> reader{archive_read_new(), archive_read_free};
    archive_read_support_format_iso9660(reader.get());
    REQUIRE(archive_read_set_options(reader.get(), options) == ARCHIVE_OK);
    REQUIRE(archive_read_open_memory(reader.get(), image.data(), image.size()) == ARCHIVE_OK);
    std::map<std::string, std::string> files;
    archive_entry* entry = nullptr;
    while (archive_read_next_header(reader.get(), &entry) == ARCHIVE_OK) {
        if (archive_entry_filetype(entry) != AE_IFREG) continue;
        std::string bytes(static_cast<std::size_t>(archive_entry_size(entry)), '\0');
        REQUIRE(archive_read_data(reader.get(), bytes.data(), bytes.size()) == static_cast<la_ssize_t>(bytes.size()));
        files[archive_entry_pathname(entry)] = std::move(bytes);
    }
    return files;
}

}  // namespace

TEST_CASE("a seed holds what cloud-init looks for, under its names in either extension") {
    const storage::SeedFiles files{"instance-id: 1\n", "#cloud-config\n" + std::string(100'000, '#'), "v",
                                   "version: 2\n"};
    const auto image = storage::build_seed_image(files);
    REQUIRE(image);
    for (const auto* options : {"!joliet", "!rockridge"}) {
        const auto found = contents_of(*image, options);
        CHECK(found.size() == 4);
        CHECK(found.at("meta-data") == files.meta_data);
        CHECK(found.at("user-data") == files.user_data);
        CHECK(found.at("vendor-data") == files.vendor_data);
        CHECK(found.at("network-config") == files.network_config);
    }
}

TEST_CASE("a seed is labelled CIDATA and ends with a whole sector") {
    const auto image = storage::build_seed_image({"m", "u", "", ""});
    REQUIRE(image);
    CHECK(image->substr(32769, 5) == "CD001");
    CHECK(image->substr(32808, 32) == "CIDATA" + std::string(26, ' '));
    CHECK(image->size() % 2048 == 0);
}

TEST_CASE("empty optional files are left out, empty needed ones are there") {
    const auto image = storage::build_seed_image({"m", "", "", ""});
    REQUIRE(image);
    const auto found = contents_of(*image, "!joliet");
    CHECK(found.size() == 2);
    CHECK(found.at("user-data").empty());
}

TEST_CASE("no time of day is in a seed: volume and root directory carry 1970") {
    const auto image = storage::build_seed_image({"m", "u", "", ""});
    REQUIRE(image);
    CHECK(image->substr(16 * 2048 + 813, 16) == "1970010100000000");
    CHECK(image->substr(16 * 2048 + 830, 16) == "1970010100000000");
    CHECK(image->substr(16 * 2048 + 156 + 18, 3) == "\x46\x01\x01");
    CHECK(*image == storage::build_seed_image({"m", "u", "", ""}).value());
    CHECK(*image != storage::build_seed_image({"n", "u", "", ""}).value());
}
