// Deleting a VM: a tombstone first (phase deleting), then steps that may run
// again until all of it is gone.
#include "agent/vm/vm_service.hpp"
#include "base/backoff.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::seconds first_retry{2};
constexpr std::chrono::seconds last_retry{60};
constexpr std::string_view files_step = "disks";
constexpr std::string_view was_ready = "was_ready";  // in an operation's plan: nothing was wrong with the VM before

std::vector<std::string> would_remove(const Vm& vm) {
    std::vector<std::string> would;
    if (is_running(vm)) would.push_back(fmt::format("power {} off", vm.name));
    would.push_back(fmt::format("undefine the domain {}", vm.name));
    would.push_back("delete " + vm.plan.root_disk);
    for (const auto& [name, path] : vm.plan.disks) would.push_back("delete " + path);
    return would;
}

base::Error cancelled_delete(const Vm& vm, const base::Result<void>& tried) {
    base::Error error{base::Errc::cancelled, fmt::format("the delete of {} was cancelled", vm.name)};
    if (!tried) error.detail += "; what held it up: " + tried.error().detail;
    return error;
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

// Until all of it is gone: a delete that was accepted ends well, or by a cancel while it waits to try again.
asio::awaitable<Outcome> VmService::run_remove(OperationControl& control, std::string id) {
    Outcome outcome;
    const auto* found = p_.index.find(id);
    if (found == nullptr) co_return outcome;  // gone already
    const auto vm = *found;
    p_.index.touch(id);
    base::Backoff backoff{first_retry, last_retry};
    bool whole = control.step_before(files_step) == nullptr;  // its files are all there
    bool go_on = !control.cancel_requested();
    while (go_on) {
        outcome.result = co_await remove_once(control, vm, whole);
        if (outcome.result || control.stopping()) break;
        const auto& why = outcome.result.error();
        const auto pause = backoff.next(p_.random);
        p_.log.warn("a VM can't be deleted yet; trying again",
                    {{"vm", id}, {"operation", control.operation().id}, {"error", why.detail}});
        go_on = co_await control.wait_to_retry(why, pause);
    }
    if (!outcome.result && control.stopping()) {
        outcome.result = base::fail(interrupted());
        co_return outcome;
    }
    if (go_on) {
        outcome.changes.emplace_back(storage::EraseVm{id});
        for (auto& image : p_.images.used_until_now(vm.plan.image_digest))
            outcome.changes.emplace_back(std::move(image));
        outcome.applied = [this, vm] {
            p_.index.erase(vm.id);
            if (on_deleted) on_deleted(vm);
        };
        co_return outcome;
    }
    outcome.result = base::fail(cancelled_delete(vm, outcome.result));
    const auto* const ready = control.operation().plan.if_contains(was_ready);
    const bool sound = whole && ready != nullptr && ready->is_bool() && ready->get_bool();
    co_await keep(outcome, id, sound ? Phase::ready : Phase::error);
    co_return outcome;
}

VmService::Done VmService::remove_once(OperationControl& control, Vm vm, bool& whole) {
    (void)co_await control.begin_step("power_off");
    auto done = co_await p_.hypervisor.power_off(vm.id, control.stalled());
    if (!done && done.error().code == base::Errc::not_found) done = {};
    if (!done) co_return done;
    if (control.stopping()) co_return base::fail(interrupted());
    (void)co_await control.begin_step("undefine");
    done = co_await p_.hypervisor.undefine(vm.id, control.stalled());
    if (!done) co_return done;
    if (control.stopping()) co_return base::fail(interrupted());
    (void)co_await control.begin_step(std::string{files_step});
    whole = false;
    co_return co_await remove_files(vm);
}

asio::awaitable<void> VmService::remove_leftover(Vm vm) {
    if (!leaving_.insert(vm.id).second) co_return;  // it is being taken away already
    const auto done = co_await take_away(vm);
    leaving_.erase(vm.id);
    if (done) {
        leftovers_.erase(vm.id);
        co_return;
    }
    // The next full reading finds it again.
    leftovers_.insert_or_assign(vm.id, vm);
    p_.log.error("a leftover domain can't be taken away", {{"vm", vm.id}, {"error", done.error().detail}});
}

// The domain goes last: as long as it is there, the next look at the domains finds it again.
VmService::Done VmService::take_away(Vm vm) {
    auto done = co_await p_.hypervisor.power_off(vm.id);
    if (!done && done.error().code == base::Errc::not_found) done = {};
    if (done) done = co_await remove_files(vm);
    if (done) done = co_await p_.hypervisor.undefine(vm.id, {});
    co_return done;
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

// The log of the serial console, and those that libvirt's log daemon put aside when it grew: <id>.log.0 and on. Its
// socket goes when its QEMU ends, unless the host's power does.
VmService::Done VmService::remove_console(Vm vm) {
    base::Result<void> result;
    if (!vm.plan.console_socket.empty()) result = co_await p_.files.remove(vm.plan.console_socket);
    if (vm.plan.console_log.empty()) co_return result;
    const std::filesystem::path log{vm.plan.console_log};
    const auto directory = log.parent_path().string();
    const auto names = co_await p_.files.list(directory);
    if (!names && names.error().code == base::Errc::not_found) co_return result;
    if (!names) co_return base::fail(names.error());
    for (const auto& name : *names)
        if (name == log.filename() || name.starts_with(log.filename().string() + "."))
            if (auto removed = co_await p_.files.remove(fmt::format("{}/{}", directory, name)); !removed)
                result = removed;
    co_return result;
}

}  // namespace ghost::agent
