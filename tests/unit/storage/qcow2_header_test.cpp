#include "storage/qcow2_header.hpp"

#include "fakes/fake_processes.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using base::Errc;

namespace {

// A header with one byte changed.
std::string with(std::size_t offset, char byte) {
    auto bytes = fakes::qcow2_bytes(1 << 20);
    bytes.at(offset) = byte;
    return bytes;
}

}  // namespace

TEST_CASE("a qcow2 header is read") {
    const auto header = storage::parse_qcow2_header(fakes::qcow2_bytes(123 << 20));
    REQUIRE(header);
    CHECK(header->version == 3);
    CHECK(header->virtual_size == 123 << 20);
    CHECK(header->backing_path.empty());
    CHECK(storage::check_standalone(*header));
}

TEST_CASE("a backing file and its format are found and refused") {
    const auto header = storage::parse_qcow2_header(fakes::qcow2_bytes(1 << 20, "/etc/shadow", "raw"));
    REQUIRE(header);
    CHECK(header->backing_path == "/etc/shadow");
    CHECK(header->backing_format == "raw");
    const auto alone = storage::check_standalone(*header);
    REQUIRE_FALSE(alone);
    CHECK(alone.error().code == Errc::invalid_image);
    CHECK(alone.error().detail.find("allowed") != std::string::npos);
}

TEST_CASE("a feature bit for an external data file, corruption or the unknown is refused") {
    CHECK(storage::parse_qcow2_header(with(79, 4))->external_data);
    CHECK(storage::parse_qcow2_header(with(79, 2))->corrupt);
    CHECK(storage::parse_qcow2_header(with(79, 32))->unknown_features == 32);
    CHECK(storage::parse_qcow2_header(with(35, 1))->encrypted);
    for (const auto& bytes : {with(79, 4), with(79, 2), with(79, 32), with(72, 1), with(35, 1)})
        CHECK_FALSE(storage::check_standalone(*storage::parse_qcow2_header(bytes)));
    for (const char harmless : {'\x01', '\x08', '\x10'})
        CHECK(storage::check_standalone(*storage::parse_qcow2_header(with(79, harmless))));
}

TEST_CASE("a data file's name is refused even where the feature bit is missing") {
    auto bytes = fakes::qcow2_bytes(1 << 20);
    bytes.replace(104, 12, std::string{"DATA\0\0\0\x04/x/y", 12});
    CHECK(storage::parse_qcow2_header(bytes)->external_data);
}

TEST_CASE("a header cut off anywhere is refused") {
    const auto whole = fakes::qcow2_bytes(1 << 20, "/backing", "qcow2");
    const std::size_t needed = 104 + 16 + 8 + 8;
    for (std::size_t length = 0; length < needed; ++length) {
        INFO(length);
        const auto header = storage::parse_qcow2_header(std::string_view{whole}.substr(0, length));
        REQUIRE_FALSE(header);
        CHECK(header.error().code == Errc::invalid_image);
    }
    CHECK(storage::parse_qcow2_header(std::string_view{whole}.substr(0, needed)));
}

TEST_CASE("nonsense in a header is refused") {
    CHECK_FALSE(storage::parse_qcow2_header(with(7, 4)));       // version
    CHECK_FALSE(storage::parse_qcow2_header(with(23, 8)));      // cluster bits
    CHECK_FALSE(storage::parse_qcow2_header(with(23, 22)));     //
    CHECK_FALSE(storage::parse_qcow2_header(with(8, '\xff')));  // backing offset
    CHECK_FALSE(storage::parse_qcow2_header(with(103, 100)));   // header length
    CHECK_FALSE(storage::parse_qcow2_header(with(100, '\xff')));
}

TEST_CASE("formats are told by their first bytes") {
    CHECK(storage::recognise_format(fakes::qcow2_bytes(1)) == "qcow2");
    CHECK(storage::recognise_format(std::string{"QFI\xfb\0\0\0\x01", 8}) == "qcow");
    CHECK(storage::recognise_format("KDMV....") == "vmdk");
    CHECK(storage::recognise_format("# Disk DescriptorFile\n") == "vmdk");
    CHECK(storage::recognise_format("\x1f\x8b\x08 gz") == "gzip");
    CHECK(storage::recognise_format(std::string(0x8001, '\0') + "CD001") == "iso9660");
    CHECK(storage::recognise_format("hello").empty());
    CHECK(storage::recognise_format("").empty());
}
