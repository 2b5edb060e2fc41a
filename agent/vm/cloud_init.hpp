// What a guest's first boot is told: the texts of its NoCloud seed.
#pragma once

#include "agent/vm/vm.hpp"
#include "storage/seed_image.hpp"

#include <string_view>

namespace ghost::agent {

// The user's own user_data goes in as it is, and ours as vendor data, which cloud-init ranks below it. All of ours is
// JSON, which is YAML too, so nothing needs quoting by hand. The instance id is the VM's id.
[[nodiscard]] storage::SeedFiles seed_files(const Vm& vm, std::string_view user_data);

}  // namespace ghost::agent
