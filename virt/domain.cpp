#include "virt/domain.hpp"

namespace ghost::virt {

std::string_view name_of(Power power) noexcept {
    switch (power) {
        case Power::running: return "running";
        case Power::off: return "off";
        case Power::paused: return "paused";
        case Power::suspended: return "suspended";
        case Power::crashed: return "crashed";
        case Power::unknown: break;
    }
    return "unknown";
}

}  // namespace ghost::virt
