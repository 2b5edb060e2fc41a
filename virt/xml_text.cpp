#include "virt/xml_text.hpp"

#include <charconv>
#include <limits>
#include <sstream>

namespace ghost::virt {
namespace {

// Bytes of the UTF-8 sequence at the front of `text`, 0 when it isn't one; `point` gets what it encodes.
std::size_t decode(std::string_view text, std::uint32_t& point) noexcept {
    const auto byte = [text](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
    const auto lead = byte(0);
    if (lead < 0x80) {
        point = lead;
        return 1;
    }
    const std::size_t length = (lead & 0xe0U) == 0xc0 ? 2 : (lead & 0xf0U) == 0xe0 ? 3 : (lead & 0xf8U) == 0xf0 ? 4 : 0;
    if (length == 0 || text.size() < length) return 0;
    point = lead & (0x7fU >> length);
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0U) != 0x80) return 0;
        point = (point << 6U) | (byte(i) & 0x3fU);
    }
    constexpr std::uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    return point >= smallest[length] ? length : 0;  // overlong forms are no UTF-8
}

constexpr bool is_xml_char(std::uint32_t c) noexcept {
    return c == 0x9 || c == 0xa || c == 0xd || (c >= 0x20 && c <= 0xd7ff) || (c >= 0xe000 && c <= 0xfffd) ||
           (c >= 0x10000 && c <= 0x10ffff);
}

std::optional<std::uint64_t> bytes_in(std::string_view unit) {
    struct Unit {
        std::string_view name;
        std::uint64_t bytes;
    };
    constexpr Unit units[] = {{"", 1ULL << 10},
                              {"b", 1},
                              {"bytes", 1},
                              {"KB", 1000},
                              {"k", 1ULL << 10},
                              {"KiB", 1ULL << 10},
                              {"MB", 1000'000},
                              {"M", 1ULL << 20},
                              {"MiB", 1ULL << 20},
                              {"GB", 1000'000'000},
                              {"G", 1ULL << 30},
                              {"GiB", 1ULL << 30},
                              {"T", 1ULL << 40},
                              {"TiB", 1ULL << 40},
                              {"TB", 1000'000'000'000}};
    for (const auto& known : units)
        if (known.name == unit) return known.bytes;
    return std::nullopt;
}

}  // namespace

bool is_xml_text(std::string_view text) noexcept {
    while (!text.empty()) {
        std::uint32_t point = 0;
        const auto length = decode(text, point);
        if (length == 0 || !is_xml_char(point)) return false;
        text.remove_prefix(length);
    }
    return true;
}

pugi::xml_node append_text(pugi::xml_node parent, const char* name, const std::string& text) {
    auto node = parent.append_child(name);
    node.text().set(text.c_str());
    return node;
}

pugi::xml_node with(pugi::xml_node node, const char* name, const std::string& value) {
    node.append_attribute(name).set_value(value.c_str());
    return node;
}

std::string to_string(const pugi::xml_document& document) {
    std::ostringstream out;
    document.save(out, "  ", pugi::format_default | pugi::format_no_declaration, pugi::encoding_utf8);
    return std::move(out).str();
}

base::Result<void> load(pugi::xml_document& document, std::string_view xml, const char* root) {
    const auto parsed = document.load_buffer(xml.data(), xml.size(), pugi::parse_default, pugi::encoding_utf8);
    if (!parsed)
        return base::fail(base::Errc::hypervisor_error,
                          std::string{"broken XML of a "} + root + ": " + parsed.description());
    if (std::string_view{document.document_element().name()} != root)
        return base::fail(base::Errc::hypervisor_error, std::string{"XML without a <"} + root + "> at its root");
    return {};
}

std::optional<std::uint64_t> size_of(pugi::xml_node node) {
    const std::string_view digits = node.text().get();
    const auto unit = bytes_in(node.attribute("unit").value());
    std::uint64_t count = 0;
    const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
    if (failed != std::errc{} || end != digits.data() + digits.size() || !unit) return std::nullopt;
    if (count > std::numeric_limits<std::uint64_t>::max() / *unit) return std::nullopt;
    return count * *unit;
}

}  // namespace ghost::virt
