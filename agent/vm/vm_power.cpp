// Power: start, stop, restart, reset, pause, resume, suspend.
#include "agent/vm/vm_service.hpp"
#include "base/within.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

using virt::Power;

constexpr std::chrono::seconds ask_again{10};     // between requests to shut down
constexpr std::chrono::seconds settle_limit{30};  // from the hypervisor's yes to its event

bool is_off(const Vm& vm) { return vm.observed.power == Power::off || vm.observed.power == Power::crashed; }

template <Power power>
bool has_power(const Vm& vm) {
    return vm.observed.power == power;
}

// Takes `asked` back, unless somebody asked otherwise since.
void want_again(Vm& vm, bool asked, bool before) {
    if (vm.spec.power_on == asked) want_power(vm, before);
}

constexpr std::chrono::seconds save_again{2};  // while an earlier save is under way
constexpr std::string_view force_key = "force";
constexpr std::string_view timeout_key = "timeout_s";

}  // namespace

boost::json::object to_plan(const StopOptions& options) {
    return {{force_key, options.force}, {timeout_key, options.timeout.count()}};
}

StopOptions stop_options_left(const Operation& operation, base::Wall now) {
    StopOptions options;
    if (const auto* const force = operation.plan.if_contains(force_key); force != nullptr && force->is_bool())
        options.force = force->get_bool();
    if (const auto* const timeout = operation.plan.if_contains(timeout_key); timeout != nullptr && timeout->is_int64())
        options.timeout = std::chrono::seconds{timeout->get_int64()};
    const auto gone = std::chrono::duration_cast<std::chrono::seconds>(now - operation.started_at.value_or(now));
    // A wall clock may have been set meanwhile.
    options.timeout = std::clamp(options.timeout - gone, std::chrono::seconds{}, options.timeout);
    return options;
}

base::Result<void> VmService::fits_to_start(const Vm& vm) const {
    return p_.capacity.fits({vm.spec.vcpus, vm.spec.memory_mib, 0}, vm.id);
}

VmService::Begun VmService::start(base::Context context, std::string id, IfMatch match) {
    const auto vm = changeable(id, match);
    if (!vm) co_return base::fail(vm.error());
    if (!p_.operations.busy((*vm)->id)) {
        if (!is_off(**vm) && (*vm)->observed.power != Power::suspended)
            co_return base::fail(power_conflict(**vm, "start"));
        if (const auto fits = fits_to_start(**vm); !fits) co_return base::fail(fits.error());
    }
    Verb verb{.kind = "vm.start", .reached = is_running};
    verb.would = {"start " + (*vm)->name};
    verb.needs = p_.capacity.needs({(*vm)->spec.vcpus, (*vm)->spec.memory_mib, 0}, (*vm)->id);
    verb.edit = [](Vm& v) { want_power(v, true); };
    verb.rollback = [was = (*vm)->spec.power_on](Vm& v) { want_again(v, true, was); };
    verb.claim = true;
    co_return co_await begin(std::move(context), **vm, std::move(verb),
                             [this, vm_id = (*vm)->id](OperationControl& control) { return power_on(control, vm_id); });
}

VmService::Begun VmService::stop(base::Context context, std::string id, StopOptions options, IfMatch match) {
    const auto vm = changeable(id, match, options.force);
    if (!vm) co_return base::fail(vm.error());
    // A forced stop passes every queue: whatever else is under way with the VM.
    if (!is_running(**vm) && !(options.force && p_.operations.busy((*vm)->id)) && !p_.operations.busy((*vm)->id))
        co_return base::fail(power_conflict(**vm, "stop"));
    Verb verb{.kind = "vm.stop", .exclusive = !options.force, .cancellable = !options.force, .reached = is_off};
    verb.would = {options.force ? fmt::format("power {} off", (*vm)->name)
                                : fmt::format("ask {} to shut down, and power it off after {} s", (*vm)->name,
                                              options.timeout.count())};
    verb.plan = to_plan(options);
    verb.edit = [](Vm& v) { want_power(v, false); };
    verb.rollback = [was = (*vm)->spec.power_on](Vm& v) { want_again(v, false, was); };
    co_return co_await begin(std::move(context), **vm, std::move(verb),
                             [this, vm_id = (*vm)->id, options](OperationControl& control) {
                                 return control.cancellable(power_off(control, vm_id, options));
                             });
}

VmService::Begun VmService::restart(base::Context context, std::string id, StopOptions options, IfMatch match) {
    const auto vm = changeable(id, match);
    if (!vm) co_return base::fail(vm.error());
    if (!is_running(**vm) && !p_.operations.busy((*vm)->id)) co_return base::fail(power_conflict(**vm, "restart"));
    if (const auto fits = fits_to_start(**vm); !fits) co_return base::fail(fits.error());
    Verb verb{.kind = "vm.restart", .plan = to_plan(options)};
    verb.would = {fmt::format("stop {}", (*vm)->name), fmt::format("start {}", (*vm)->name)};
    verb.needs = p_.capacity.needs({(*vm)->spec.vcpus, (*vm)->spec.memory_mib, 0}, (*vm)->id);
    verb.edit = [](Vm& v) { want_power(v, true); };
    verb.claim = true;
    co_return co_await begin(std::move(context), **vm, std::move(verb),
                             [this, vm_id = (*vm)->id, options](OperationControl& control) -> Done {
                                 auto off = co_await power_off(control, vm_id, options);
                                 if (!off) co_return off;
                                 if (control.stopping()) co_return base::fail(interrupted());
                                 co_return co_await power_on(control, vm_id);
                             });
}

// Of a restart that a crash cut off: the VM's power was taken, or was just being taken, or its guest was asked to shut
// down. Left alone, a VM that was running would be off sooner or later, which nobody asked for.
bool VmService::restart_is_halfway(const OperationControl& control) {
    return control.step_before("shutdown") != nullptr || control.step_before("power_off") != nullptr ||
           control.step_before("prepare") != nullptr;
}

// Nothing: it isn't one to be gone on with.
asio::awaitable<std::optional<base::Result<void>>> VmService::go_on_with_power(OperationControl& control,
                                                                               std::string id) {
    const auto& operation = control.operation();
    if (operation.kind == "vm.restart" && restart_is_halfway(control)) co_return co_await finish_restart(control, id);
    const auto* vm = p_.index.find(id);
    // Somebody may have started it since.
    if (operation.kind == "vm.stop" && vm != nullptr && !vm->spec.power_on)
        co_return co_await control.cancellable(power_off(control, id, stop_options_left(operation, p_.clock.wall())));
    if (operation.kind == "vm.suspend" && control.step_before("suspend") != nullptr)
        co_return co_await save(control, id);
    co_return std::nullopt;
}

VmService::Done VmService::finish_restart(OperationControl& control, std::string id) {
    const bool was_off = control.step_before("prepare") != nullptr;
    const auto* vm = p_.index.find(id);
    if (vm == nullptr) co_return base::fail(base::Errc::not_found, "the VM is gone");
    if (is_running(*vm)) {
        if (was_off) co_return base::Result<void>{};  // and was started since
        auto options = stop_options_left(control.operation(), p_.clock.wall());
        options.force = options.force || control.step_before("power_off") != nullptr;
        if (auto off = co_await power_off(control, id, options); !off) co_return off;
        if (control.stopping()) co_return base::fail(interrupted());
        vm = p_.index.find(id);
        if (vm == nullptr) co_return base::fail(base::Errc::not_found, "the VM is gone");
    }
    if (auto fits = fits_to_start(*vm); !fits) co_return fits;
    p_.index.claim(id);
    auto on = co_await power_on(control, id);
    p_.index.release(id);
    co_return on;
}

VmService::Done VmService::power_on(OperationControl& control, std::string id) {
    (void)co_await control.begin_step("prepare");
    const auto* vm = p_.index.find(id);
    if (vm == nullptr) co_return base::fail(base::Errc::not_found, "the VM is gone");
    if (auto networks = co_await ensure_networks(control, *vm); !networks) co_return networks;
    vm = p_.index.find(id);
    if (vm != nullptr && vm->observed.power != Power::suspended)
        if (auto grown = co_await apply_growth(id); !grown) co_return grown;
    // A forced stop passed by meanwhile: it is the last word.
    vm = p_.index.find(id);
    if (vm == nullptr || !vm->spec.power_on)
        co_return base::fail(base::Errc::state_conflict, "the VM was stopped by force meanwhile");
    (void)co_await control.begin_step("start");
    if (auto started = co_await p_.hypervisor.start(id, control.stalled()); !started) co_return started;
    if (!co_await await_power(id, [](const Vm& v) { return is_running(v); }, settle_limit) && !control.stopping())
        co_return base::fail(base::Errc::hypervisor_error, "the domain was started and isn't running");
    co_return base::Result<void>{};
}

// A root disk that was asked to be larger grows while nobody has it open.
VmService::Done VmService::apply_growth(std::string id) {
    const auto* vm = p_.index.find(id);
    if (vm == nullptr || vm->plan.root_gib == 0 || vm->plan.root_gib >= vm->spec.disk_gib)
        co_return base::Result<void>{};
    const auto gib = vm->spec.disk_gib;
    const auto domain = co_await p_.hypervisor.domain(id);
    if (!domain) co_return base::fail(domain.error());
    // The active file as the domain has it: a snapshot may have moved it.
    std::string path = vm->plan.root_disk;
    for (const auto& disk : domain->disks)
        if (disk.serial == "root" && !disk.path.empty()) path = disk.path;
    if (auto grown = co_await p_.volumes.grow(path, gib << 30); !grown) co_return grown;
    p_.index.change(id, [gib](Vm& v) { v.plan.root_gib = gib; });
    co_return base::Result<void>{};
}

VmService::Done VmService::power_off(OperationControl& control, std::string id, StopOptions options) {
    if (!options.force) {
        (void)co_await control.begin_step("shutdown");
        control.let_others_pass();
        const auto* vm = p_.index.find(id);
        // A paused guest can't hear anybody.
        if (vm != nullptr && vm->observed.power == Power::running) {
            const auto asked = co_await ask_to_shut_down(control, id, options.timeout);
            if (!asked) co_return base::fail(asked.error());
            if (*asked) co_return base::Result<void>{};
            if (control.stopping()) co_return base::fail(interrupted());
        }
        control.no_more_cancel();
    }
    (void)co_await control.begin_step("power_off");
    if (auto off = co_await p_.hypervisor.power_off(id, control.stalled()); !off) co_return off;
    if (!co_await await_power(id, is_off, settle_limit)) co_await p_.observer.refresh(id);
    co_return base::Result<void>{};
}

// True when the guest went off within `limit`. A guest that boots just now misses the first request, so it is asked
// again now and then.
asio::awaitable<base::Result<bool>> VmService::ask_to_shut_down(OperationControl& control, std::string id,
                                                                base::Duration limit) {
    const auto deadline = p_.clock.now() + limit;
    for (;;) {
        // One that doesn't come back, from a monitor that hangs, costs the guest its time and not the caller theirs.
        const auto asked =
            co_await base::within(p_.clock, deadline - p_.clock.now(), p_.hypervisor.request_shutdown(id));
        if (!asked && asked.error().code == base::Errc::hypervisor_unavailable) co_return base::fail(asked.error());
        const auto left = deadline - p_.clock.now();
        if (co_await await_power(id, is_off, std::min<base::Duration>(left, ask_again))) co_return true;
        if (control.stopping() || control.cancel_requested() || p_.clock.now() >= deadline) co_return false;
    }
}

// libvirt carries on with the start of an agent that died, and shows the domain as paused meanwhile.
asio::awaitable<bool> VmService::has_come_up(std::string id) {
    co_await p_.observer.refresh(id);
    const auto settled = [](const Vm& vm) {
        return vm.observed.power != Power::paused || vm.observed.power_reason != "starting_up";
    };
    (void)co_await await_power(id, settled, settle_limit);
    const auto* vm = p_.index.find(id);
    co_return vm != nullptr&& is_running(*vm);
}

asio::awaitable<bool> VmService::await_power(std::string id, std::function<bool(const Vm&)> holds,
                                             base::Duration limit) {
    const auto deadline = p_.clock.now() + limit;
    for (;;) {
        const auto* vm = p_.index.find(id);
        if (vm != nullptr && holds(*vm)) co_return true;
        const auto state = co_await asio::this_coro::cancellation_state;
        if (vm == nullptr || p_.clock.now() >= deadline || state.cancelled() != asio::cancellation_type::none)
            co_return false;
        co_await p_.index.changed().wait_until(p_.clock, deadline);
    }
}

VmService::Begun VmService::reset(base::Context context, std::string id, IfMatch match) {
    const auto vm = changeable(id, match);
    if (!vm) co_return base::fail(vm.error());
    if (!is_running(**vm) && !p_.operations.busy((*vm)->id)) co_return base::fail(power_conflict(**vm, "reset"));
    co_return co_await begin(std::move(context), **vm,
                             {.kind = "vm.reset", .would = {fmt::format("reset {}", (*vm)->name)}},
                             [this, vm_id = (*vm)->id](OperationControl& control) -> Done {
                                 (void)co_await control.begin_step("reset");
                                 co_return co_await p_.hypervisor.reset(vm_id, control.stalled());
                             });
}

VmService::Begun VmService::pause(base::Context context, std::string id, IfMatch match) {
    const auto vm = changeable(id, match);
    if (!vm) co_return base::fail(vm.error());
    if ((*vm)->observed.power != Power::running && !p_.operations.busy((*vm)->id))
        co_return base::fail(power_conflict(**vm, "pause"));
    co_return co_await begin(
        std::move(context), **vm,
        {.kind = "vm.pause", .reached = has_power<Power::paused>, .would = {fmt::format("pause {}", (*vm)->name)}},
        [this, vm_id = (*vm)->id](OperationControl& control) -> Done {
            (void)co_await control.begin_step("pause");
            co_return co_await p_.hypervisor.pause(vm_id, control.stalled());
        });
}

VmService::Begun VmService::resume(base::Context context, std::string id, IfMatch match) {
    const auto vm = changeable(id, match);
    if (!vm) co_return base::fail(vm.error());
    if ((*vm)->observed.power != Power::paused && !p_.operations.busy((*vm)->id))
        co_return base::fail(power_conflict(**vm, "resume"));
    co_return co_await begin(
        std::move(context), **vm,
        {.kind = "vm.resume", .reached = has_power<Power::running>, .would = {fmt::format("resume {}", (*vm)->name)}},
        [this, vm_id = (*vm)->id](OperationControl& control) -> Done {
            (void)co_await control.begin_step("resume");
            co_return co_await p_.hypervisor.resume(vm_id, control.stalled());
        });
}

VmService::Begun VmService::suspend(base::Context context, std::string id, IfMatch match) {
    const auto vm = changeable(id, match);
    if (!vm) co_return base::fail(vm.error());
    if (!is_running(**vm) && !p_.operations.busy((*vm)->id)) co_return base::fail(power_conflict(**vm, "suspend"));
    co_return co_await begin(std::move(context), **vm,
                             {.kind = "vm.suspend",
                              .cancellable = true,
                              .reached = has_power<Power::suspended>,
                              .would = {fmt::format("save the memory of {} to disk", (*vm)->name)}},
                             [this, vm_id = (*vm)->id](OperationControl& control) { return save(control, vm_id); });
}

// libvirt carries on with the save of an agent that died, and lets nobody begin another meanwhile.
VmService::Done VmService::save_to_the_end(OperationControl& control, std::string id) {
    for (;;) {
        auto saved = co_await p_.hypervisor.save(id, control.stalled());
        if (saved || control.stopping()) co_return saved;
        co_await p_.observer.refresh(id);
        const auto* vm = p_.index.find(id);
        if (vm != nullptr && vm->observed.power == Power::suspended) co_return base::Result<void>{};
        const bool goes_on =
            vm != nullptr && vm->observed.power == Power::paused && vm->observed.power_reason == "save";
        if (!goes_on || saved.error().code != base::Errc::state_conflict) co_return saved;
        control.stalled()();
        if (!co_await p_.clock.sleep_for(save_again)) co_return saved;
    }
}

VmService::Done VmService::save(OperationControl& control, std::string id) {
    (void)co_await control.begin_step("suspend");
    co_return co_await control.abortable(save_to_the_end(control, id), [this, id]() -> asio::awaitable<void> {
        if (const auto done = co_await p_.hypervisor.abort_job(id); !done)
            p_.log.warn("a save can't be ended", {{"vm", id}, {"error", done.error().detail}});
    });
}

}  // namespace ghost::agent
