#include "agent/access/far_end.hpp"

namespace ghost::agent {

std::optional<Ending> ending_of(const Vm* vm) {
    if (vm == nullptr) return Ending{Ending::vm_deleted, "the VM was deleted"};
    switch (vm->observed.power) {
        case virt::Power::off:
        case virt::Power::suspended:
        case virt::Power::crashed: return Ending{Ending::vm_stopped, "the VM stopped"};
        default: break;
    }
    // A hypervisor that can't be asked tells nothing; one that doesn't know the domain does.
    if (!vm->observed.present && vm->observed.at != base::Wall{}) return Ending{Ending::vm_stopped, "the VM stopped"};
    return std::nullopt;
}

}  // namespace ghost::agent
