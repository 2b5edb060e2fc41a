// After a boot of the host: what ran before comes back.
#include "agent/vm/vm_service.hpp"

#include <utility>
#include <vector>

namespace ghost::agent {
namespace asio = boost::asio;

asio::awaitable<void> VmService::start_after_boot() {
    std::vector<std::string> ids;
    for (const auto& [id, vm] : p_.index.all()) {
        const bool comes_back = vm.spec.autostart != Autostart::never && vm.spec.power_on;
        const bool is_off = vm.observed.present && !is_running(vm);
        if (vm.managed && vm.phase == Phase::ready && comes_back && is_off && !p_.operations.busy(id))
            ids.push_back(id);
    }
    for (const auto& id : ids) {
        base::Context context;
        context.request_id = "host-boot";
        context.who = base::Principal::of_agent();
        const auto begun = co_await start(std::move(context), id, {});
        if (!begun)
            p_.log.error("a VM that ran before the host's boot can't be started",
                         {{"vm", id}, {"error", begun.error().detail}});
    }
    if (!ids.empty()) p_.log.info("the host has booted; what ran before is started", {{"vms", ids.size()}});
}

}  // namespace ghost::agent
