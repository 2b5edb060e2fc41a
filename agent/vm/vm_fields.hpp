// The members of a VM's documents, one function each: types, bounds and what a
// fault says. Used by vm_document only.
#pragma once

#include "agent/json_reader.hpp"
#include "agent/vm/vm_document.hpp"

#include <optional>
#include <string>

namespace ghost::agent::fields {

std::optional<std::string> vm_name(JsonReader& reader, std::string_view key);
std::optional<std::string> owner(JsonReader& reader);
Labels labels(JsonReader& reader);
void label_changes(JsonReader& reader, const Labels& current, VmPatch& patch);

void create_spec(JsonReader& reader, const VmDefaults& defaults, CreateVm& create);
void patch_spec(JsonReader& reader, const VmSpec& current, const ForwardRules& rules, VmPatch& patch);
// What we wrote ourselves: types are checked, unknown members are left alone.
void stored_spec(JsonReader& reader, VmSpec& spec);

}  // namespace ghost::agent::fields
