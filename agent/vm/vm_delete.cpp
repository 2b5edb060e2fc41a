// Deleting a VM: a tombstone first (phase deleting), then steps that may run
// again until all of it is gone.
#include "agent/vm/vm_service.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::string_view was_ready = "was_ready";  // in an operation's plan: nothing was wrong with the VM before

std::vector<std::string> would_remove(const Vm& vm) {
    std::vector<std::string> would;
    if (is_running(vm)) would.push_back(fmt::format("power {} off", vm.name));
    would.push_back(fmt::format("undefine the domain {}", vm.name));
    would.push_back("delete " + vm.plan.root_disk);
    for (const auto& [name, path] : vm.plan.disks) would.push_back("delete " + path);
    return would;
}

}  // namespace

VmService::Begun VmService::remove(base::Context context, std::string id, IfMatch match) {
    const auto found = changeable(id, match);
    if (!found) co_return base::fail(found.error());
    const auto& vm = **found;
    if (vm.spec.is_protected)
        co_return base::fail(base::Errc::protected_resource,
                             fmt::format("{} is protected; set spec.protected to false first", vm.name));
    const auto vm_id = vm.id;
    OperationRequest operation;
    operation.kind = "vm.delete";
    operation.target = {"vm", vm_id, vm.name};
    operation.context = std::move(context);
    if (operation.context.dry_run) {
        operation.would = would_remove(vm);
        co_return p_.operations.preview(std::move(operation));
    }
    const bool free = !p_.operations.busy(vm_id);
    const auto phase_before = vm.phase;
    operation.plan[was_ready] = phase_before == Phase::ready;
    if (free) {
        p_.index.change(vm_id, [](Vm& v) { v.phase = Phase::deleting; });
        operation.accept_with.emplace_back(changed_row(vm_id));
    }
    auto begun = co_await p_.operations.begin(
        std::move(operation), [this, vm_id](OperationControl& control) { return run_remove(control, vm_id); });
    if (!begun && free) p_.index.change(vm_id, [phase_before](Vm& v) { v.phase = phase_before; });
    co_return begun;
}

asio::awaitable<Outcome> VmService::run_remove(OperationControl& control, std::string id) {
    Outcome outcome;
    const auto* found = p_.index.find(id);
    if (found == nullptr) co_return outcome;  // gone already
    const auto vm = *found;
    p_.index.touch(id);
    const auto step = [&](base::Result<void> done) {
        if (!done && outcome.result) outcome.result = std::move(done);
        return outcome.result.has_value() && !control.stopping();
    };
    (void)co_await control.begin_step("power_off");
    auto off = co_await p_.hypervisor.power_off(id, control.stalled());
    if (!off && off.error().code == base::Errc::not_found) off = {};
    bool going_on = step(std::move(off));
    if (going_on) {
        (void)co_await control.begin_step("undefine");
        going_on = step(co_await p_.hypervisor.undefine(id, control.stalled()));
    }
    const bool whole = !going_on;  // its files are all there
    if (going_on) {
        (void)co_await control.begin_step("disks");
        going_on = step(co_await remove_files(vm));
    }
    if (control.stopping() && !going_on) {
        outcome.result = base::fail(interrupted());
        co_return outcome;
    }
    if (outcome.result) {
        outcome.changes.emplace_back(storage::EraseVm{id});
        outcome.applied = [this, id] {
            p_.index.erase(id);
            if (on_deleted) on_deleted();
        };
        co_return outcome;
    }
    const auto* const ready = control.operation().plan.if_contains(was_ready);
    const bool sound = whole && ready != nullptr && ready->is_bool() && ready->get_bool();
    co_await keep(outcome, id, sound ? Phase::ready : Phase::error);
    co_return outcome;
}

asio::awaitable<void> VmService::remove_leftover(Vm vm) {
    auto done = co_await p_.hypervisor.power_off(vm.id);
    if (!done && done.error().code == base::Errc::not_found) done = {};
    // The domain goes last: as long as it is there, the next look at the domains finds it again.
    if (done) done = co_await remove_files(vm);
    if (done) done = co_await p_.hypervisor.undefine(vm.id, {});
    if (done) {
        leftovers_.erase(vm.id);
        co_return;
    }
    // The next full reading finds it again.
    leftovers_.insert_or_assign(vm.id, vm);
    p_.log.error("a leftover domain can't be taken away", {{"vm", vm.id}, {"error", done.error().detail}});
}

// In phase error what is left of it shows, and a delete can be asked for (again). A delete that took nothing but the
// power away leaves a VM as good as before, unless its domain is gone all the same.
asio::awaitable<void> VmService::keep(Outcome& outcome, std::string id, Phase phase) {
    co_await p_.observer.refresh(id);
    p_.index.change(id, [phase](Vm& v) { v.phase = v.observed.present ? phase : Phase::error; });
    journal(outcome, id);
    outcome.applied = [this, id] { p_.index.touch(id); };
}

// Of a VM that is off: as many as can be; the first that can't is the error.
VmService::Done VmService::remove_files(Vm vm) {
    auto result = co_await remove_disks(vm);
    if (!vm.plan.seed.empty())
        if (auto seed = co_await p_.files.remove(vm.plan.seed); !seed && result) result = seed;
    if (auto console = co_await remove_console(vm); !console && result) result = console;
    co_return result;
}

// The log of the serial console, and those that libvirt's log daemon put aside when it grew: <id>.log.0 and on.
VmService::Done VmService::remove_console(Vm vm) {
    if (vm.plan.console_log.empty()) co_return base::Result<void>{};
    const std::filesystem::path log{vm.plan.console_log};
    const auto directory = log.parent_path().string();
    const auto names = co_await p_.files.list(directory);
    if (!names && names.error().code == base::Errc::not_found) co_return base::Result<void>{};
    if (!names) co_return base::fail(names.error());
    base::Result<void> result;
    for (const auto& name : *names)
        if (name == log.filename() || name.starts_with(log.filename().string() + "."))
            if (auto removed = co_await p_.files.remove(fmt::format("{}/{}", directory, name)); !removed)
                result = removed;
    co_return result;
}

}  // namespace ghost::agent
