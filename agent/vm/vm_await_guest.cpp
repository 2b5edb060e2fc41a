// What a create may wait for once the VM runs.
#include "agent/vm/vm_service.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::agent {
namespace {

constexpr std::chrono::minutes address_limit{10};
constexpr std::chrono::minutes guest_limit{20};

std::string not_ready_yet(const GuestReadiness& guest) {
    const auto minutes = guest_limit.count();
    if (guest.reason == "no_guest_agent")
        return fmt::format("no guest agent answered for {} minutes: is qemu-guest-agent in the image?", minutes);
    if (guest.reason == "guest_exec_not_allowed")
        return fmt::format(
            "the guest forbids its agent to run programs (guest-exec), so cloud-init's status is not "
            "known after {} minutes",
            minutes);
    if (guest.reason == "cloud_init_running") return fmt::format("cloud-init still ran after {} minutes", minutes);
    return fmt::format("the guest was not ready after {} minutes: {}", minutes,
                       guest.message.empty() ? guest.reason : guest.message);
}

}  // namespace

VmService::Done VmService::wait_for_address(std::string id) {
    const auto settled = [](const Vm& vm) { return !vm.observed.addresses.empty() || !is_running(vm); };
    const bool done = co_await await_power(id, settled, address_limit);
    const auto* vm = p_.index.find(id);
    if (vm != nullptr && !vm->observed.addresses.empty()) co_return base::Result<void>{};
    if (done) co_return base::fail(base::Errc::state_conflict, "the guest went off before it had an address");
    co_return base::fail(base::Errc::deadline_exceeded,
                         fmt::format("the guest had no address after {} minutes", address_limit.count()));
}

VmService::Done VmService::wait_for_guest(std::string id) {
    const auto awaited = p_.observer.await_readiness(id);
    const auto failed = [](const Vm& vm) { return vm.observed.guest.reason == "cloud_init_error"; };
    const auto settled = [failed](const Vm& vm) {
        return vm.observed.guest.ready == Verdict::yes || failed(vm) || !is_running(vm);
    };
    const bool done = co_await await_power(id, settled, guest_limit);
    const auto* vm = p_.index.find(id);
    const auto guest = vm == nullptr ? GuestReadiness{} : vm->observed.guest;
    if (guest.ready == Verdict::yes) co_return base::Result<void>{};
    if (vm != nullptr && failed(*vm)) co_return base::fail(base::Errc::state_conflict, guest.message);
    if (done) co_return base::fail(base::Errc::state_conflict, "the guest went off before it was ready");
    co_return base::fail(base::Errc::deadline_exceeded, not_ready_yet(guest));
}

}  // namespace ghost::agent
