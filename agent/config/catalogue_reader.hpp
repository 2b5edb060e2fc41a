// The catalogue of images: the one that is built in, and images.d/*.yaml over it.
#pragma once

#include "agent/config/config_layers.hpp"
#include "agent/images/catalogue.hpp"

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::agent {

[[nodiscard]] std::string_view built_in_catalogue();  // YAML, made by the build of packaging/images.d/catalogue.yaml
[[nodiscard]] std::string_view ubuntu_keyring();      // made of packaging/keyrings/ubuntu-cloudimage.gpg

// The bytes of the keyring that is called so; nullopt: there is none.
using FindKeyring = std::function<std::optional<std::string>(const std::string& name)>;

// Those of `layer` that there are for `architecture` ("x86_64" | "aarch64"). A fault for everything that can't be
// right.
[[nodiscard]] Catalogue read_catalogue(const Layer& layer, std::string_view architecture,
                                       const FindKeyring& find_keyring, FaultList& faults);

}  // namespace ghost::agent
