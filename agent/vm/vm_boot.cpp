// After a boot of the host: what ran before comes back.
#include "agent/vm/vm_service.hpp"

#include <utility>
#include <vector>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::minutes boot_patience{10};  // for operations' ends, all together
constexpr std::chrono::seconds start_again{5};

bool comes_back(const Vm& vm) {
    return vm.managed && vm.phase == Phase::ready && vm.spec.autostart != Autostart::never && vm.spec.power_on &&
           vm.observed.present && !is_running(vm);
}

}  // namespace

asio::awaitable<void> VmService::start_after_boot() {
    const auto deadline = p_.clock.now() + boot_patience;
    // Those that an operation is busy with, which a crash cut off, come last: it may start them.
    std::vector<std::string> ids;
    for (const bool busy : {false, true})
        for (const auto& [id, vm] : p_.index.all())
            if (comes_back(vm) && p_.operations.busy(id) == busy) ids.push_back(id);
    std::vector<std::string> begun;
    for (const auto& id : ids) {
        if (const auto busy = p_.operations.running_on(id))
            (void)co_await p_.operations.wait(busy->id, deadline - p_.clock.now());
        const auto started = co_await start_for_boot(id, deadline);
        if (started && *started)
            begun.push_back((*started)->id);
        else if (!started)
            p_.log.error("a VM that ran before the host's boot can't be started",
                         {{"vm", id}, {"error", started.error().detail}});
    }
    if (!ids.empty()) p_.log.info("the host has booted; what ran before is started", {{"vms", begun.size()}});
    for (const auto& id : begun) (void)co_await p_.operations.wait(id, deadline - p_.clock.now());
}

// nullptr: there is nothing to start. A hypervisor that is away for a while, and too many at once, are waited for.
VmService::Begun VmService::start_for_boot(std::string id, base::Instant deadline) {
    for (;;) {
        const auto* vm = p_.index.find(id);
        if (vm == nullptr || !comes_back(*vm)) co_return nullptr;
        base::Context context;
        context.request_id = "host-boot";
        context.who = base::Principal::of_agent();
        auto started = co_await start(std::move(context), id, {});
        const bool passes = !started && (started.error().code == base::Errc::hypervisor_unavailable ||
                                         started.error().code == base::Errc::overloaded);
        if (!passes || p_.clock.now() >= deadline || !co_await p_.clock.sleep_for(start_again)) co_return started;
    }
}

}  // namespace ghost::agent
