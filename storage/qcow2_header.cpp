#include "storage/qcow2_header.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

namespace ghost::storage {
namespace {

using base::Errc;
using namespace std::string_view_literals;

struct Magic {
    std::size_t offset;
    std::string_view bytes;
    std::string_view format;
};

constexpr std::array magics{
    Magic{0, "QED\0"sv, "qed"},
    Magic{0, "KDMV"sv, "vmdk"},
    Magic{0, "COWD"sv, "vmdk"},
    Magic{0, "# Disk DescriptorFile"sv, "vmdk"},
    Magic{0, "vhdxfile"sv, "vhdx"},
    Magic{0, "conectix"sv, "vhd"},
    Magic{0, "LUKS\xba\xbe"sv, "luks"},
    Magic{0, "WithoutFreeSpace"sv, "parallels"},
    Magic{0, "WithouFreSpacExt"sv, "parallels"},
    Magic{0, "\x1f\x8b\x08"sv, "gzip"},
    Magic{0, "\xfd\x37zXZ\0"sv, "xz"},
    Magic{0, "\x28\xb5\x2f\xfd"sv, "zstd"},
    Magic{0, "BZh"sv, "bzip2"},
    Magic{0, "PK\x03\x04"sv, "zip"},
    Magic{0x40, "\x7f\x10\xda\xbe"sv, "vdi"},
    Magic{0x8001, "CD001"sv, "iso9660"},
};

// Big-endian numbers at an offset; nothing when the head ends before.
template <class N>
std::optional<N> number_at(std::string_view head, std::uint64_t offset) {
    if (offset > head.size() || head.size() - offset < sizeof(N)) return std::nullopt;
    N value = 0;
    for (std::size_t i = 0; i < sizeof(N); ++i)
        value = static_cast<N>((value << 8) | static_cast<unsigned char>(head[static_cast<std::size_t>(offset) + i]));
    return value;
}

std::optional<std::string> text_at(std::string_view head, std::uint64_t offset, std::uint64_t length) {
    if (offset > head.size() || head.size() - offset < length) return std::nullopt;
    return std::string{head.substr(static_cast<std::size_t>(offset), static_cast<std::size_t>(length))};
}

constexpr std::uint32_t qcow_magic = 0x514649fb;
constexpr std::uint32_t extension_backing_format = 0xe2792aca;
constexpr std::uint32_t extension_external_data = 0x44415441;
constexpr std::uint64_t feature_dirty = 1, feature_corrupt = 2, feature_external_data = 4, feature_compression = 8,
                        feature_extended_l2 = 16;
constexpr std::uint64_t known_features =
    feature_dirty | feature_corrupt | feature_external_data | feature_compression | feature_extended_l2;

auto broken(std::string_view what) { return base::fail(Errc::invalid_image, fmt::format("broken qcow2: {}", what)); }

// Extensions fill the room up to `end`, or end before it with one of type 0.
base::Result<void> read_extensions(std::string_view head, std::uint64_t offset, std::uint64_t end,
                                   Qcow2Header& header) {
    while (offset < end) {
        const auto type = number_at<std::uint32_t>(head, offset);
        const auto length = number_at<std::uint32_t>(head, offset + 4);
        if (!type || !length) return broken("its header extensions have no end");
        if (*type == 0) return {};
        const auto text = text_at(head, offset + 8, *length);
        if (!text) return broken("a header extension runs out of the header");
        if (*type == extension_backing_format) header.backing_format = *text;
        if (*type == extension_external_data) header.external_data = true;
        offset += 8 + ((std::uint64_t{*length} + 7) & ~std::uint64_t{7});
    }
    return {};
}

}  // namespace

std::string_view recognise_format(std::string_view head) noexcept {
    if (number_at<std::uint32_t>(head, 0) == qcow_magic)
        return number_at<std::uint32_t>(head, 4).value_or(0) == 1 ? "qcow"sv : "qcow2"sv;
    const auto* const it = std::ranges::find_if(magics, [head](const Magic& magic) {
        return head.size() >= magic.offset && head.substr(magic.offset).starts_with(magic.bytes);
    });
    return it == magics.end() ? ""sv : it->format;
}

base::Result<Qcow2Header> parse_qcow2_header(std::string_view head) {
    if (recognise_format(head) != "qcow2") return base::fail(Errc::invalid_image, "not a qcow2 image");
    Qcow2Header header;
    header.version = number_at<std::uint32_t>(head, 4).value_or(0);
    if (header.version != 2 && header.version != 3)
        return broken(fmt::format("version {} (2 and 3 are known)", header.version));
    const auto backing_offset = number_at<std::uint64_t>(head, 8);
    const auto backing_length = number_at<std::uint32_t>(head, 16);
    const auto cluster_bits = number_at<std::uint32_t>(head, 20);
    const auto size = number_at<std::uint64_t>(head, 24);
    const auto encryption = number_at<std::uint32_t>(head, 32);
    if (!number_at<std::uint64_t>(head, 64)) return broken("the file ends within its header");
    if (*cluster_bits < 9 || *cluster_bits > 21) return broken(fmt::format("cluster size 2^{}", *cluster_bits));
    header.virtual_size = *size;
    header.encrypted = *encryption != 0;

    std::uint64_t extensions = 72;
    if (header.version == 3) {
        const auto features = number_at<std::uint64_t>(head, 72);
        const auto length = number_at<std::uint32_t>(head, 100);
        if (!features || !length) return broken("the file ends within its header");
        header.corrupt = (*features & feature_corrupt) != 0;
        header.external_data = (*features & feature_external_data) != 0;
        header.unknown_features = *features & ~known_features;
        if (*length < 104 || *length > std::uint64_t{1} << *cluster_bits)
            return broken(fmt::format("header length {}", *length));
        extensions = *length;
    }
    if (*backing_offset != 0) {
        if (*backing_length > 1023) return broken("its backing file's name is too long");
        auto name = text_at(head, *backing_offset, *backing_length);
        if (!name) return broken("its backing file's name lies outside the header");
        header.backing_path = name->empty() ? std::string{"(without a name)"} : std::move(*name);
    }
    const auto end = *backing_offset != 0 ? *backing_offset : std::uint64_t{1} << *cluster_bits;
    if (auto read = read_extensions(head, extensions, end, header); !read) return base::fail(std::move(read).error());
    return header;
}

base::Result<void> check_standalone(const Qcow2Header& header) {
    static constexpr std::string_view allowed = "allowed is a standalone qcow2 (or raw, when it is said)";
    const auto refuse = [](std::string_view what) {
        return base::fail(Errc::invalid_image, fmt::format("{}; {}", what, allowed));
    };
    if (!header.backing_path.empty()) return refuse("the image has a backing file");
    if (header.external_data) return refuse("the image keeps its data in another file");
    if (header.encrypted) return refuse("the image is encrypted");
    if (header.corrupt) return refuse("the image is marked corrupt");
    if (header.unknown_features != 0)
        return refuse(fmt::format("the image needs features that are not known (mask {:#x})", header.unknown_features));
    return {};
}

}  // namespace ghost::storage
