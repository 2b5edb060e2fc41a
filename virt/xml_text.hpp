// Small reading and writing of XML through pugixml, for the room's documents.
#pragma once

#include "base/error.hpp"

#include <pugixml.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::virt {

// Well-formed UTF-8 of nothing but XML 1.0 characters: what escaping can't make good.
[[nodiscard]] bool is_xml_text(std::string_view text) noexcept;

// <name>text</name> under `parent`.
pugi::xml_node append_text(pugi::xml_node parent, const char* name, const std::string& text);
// `node` with one more attribute; returns the node, so that calls chain.
pugi::xml_node with(pugi::xml_node node, const char* name, const std::string& value);

[[nodiscard]] std::string to_string(const pugi::xml_document& document);

// The document whose root element is `root`; hypervisor_error for anything else.
[[nodiscard]] base::Result<void> load(pugi::xml_document& document, std::string_view xml, const char* root);

// An element like <memory unit='MiB'>512</memory> in bytes. No unit: KiB, as libvirt has it. nullopt: not a size.
[[nodiscard]] std::optional<std::uint64_t> size_of(pugi::xml_node node);

}  // namespace ghost::virt
