// libvirt's numbers for states and events in our words.
#pragma once

#include "virt/domain.hpp"

#include <string>
#include <string_view>

namespace ghost::virt {

struct PowerState {
    Power power = Power::unknown;
    std::string reason;
};

// `state` is a virDomainState, `reason` belongs to it. `saved`: the domain has a managed save image.
[[nodiscard]] PowerState power_of(int state, int reason, bool saved);

// A virDomainEventType as Event::what: "started", "stopped", "defined", ... A stop after a crash is "crashed".
[[nodiscard]] std::string_view lifecycle_word(int event, int detail) noexcept;

}  // namespace ghost::virt
