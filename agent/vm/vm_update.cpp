// Changing a VM: labels, owner, protection, size, wanted power.
#include "agent/vm/vm_service.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

// The patched record, generation and all; what doesn't differ from `vm` changes nothing.
void apply_patch(Vm& vm, const VmPatch& patch) {
    const auto before = to_document(vm);
    if (patch.owner) vm.owner = *patch.owner;
    if (patch.clear_labels) vm.labels.clear();
    for (const auto& [key, value] : patch.labels) {
        if (value)
            vm.labels[key] = *value;
        else
            vm.labels.erase(key);
    }
    auto& spec = vm.spec;
    spec.is_protected = patch.is_protected.value_or(spec.is_protected);
    spec.autostart = patch.autostart.value_or(spec.autostart);
    spec.power_on = patch.power_on.value_or(spec.power_on);
    spec.vcpus = patch.vcpus.value_or(spec.vcpus);
    spec.memory_mib = patch.memory_mib.value_or(spec.memory_mib);
    spec.disk_gib = patch.disk_gib.value_or(spec.disk_gib);
    apply_forwards(patch, spec.forwards);
    spec.guest_access = patch.guest_access.value_or(spec.guest_access);
    if (to_document(vm) != before) ++vm.generation;
}

// As it was before the patch, but for the wanted power when somebody asked otherwise since.
void put_back(Vm& vm, const Vm& before, const VmPatch& patch) {
    const bool wanted = vm.spec.power_on;
    vm.owner = before.owner;
    vm.labels = before.labels;
    vm.spec = before.spec;
    vm.spec.disk_gib = std::max(before.spec.disk_gib, vm.plan.root_gib);  // a disk that has grown stays so
    if (wanted != patch.power_on.value_or(before.spec.power_on)) vm.spec.power_on = wanted;
    ++vm.generation;
}

void say_forwards(const std::map<std::string, Forward>& before, const std::map<std::string, Forward>& after,
                  std::vector<std::string>& would) {
    for (const auto& [name, forward] : before)
        if (!after.contains(name)) would.push_back(fmt::format("no longer forward {} ({})", describe(forward), name));
    for (const auto& [name, forward] : after)
        if (const auto was = before.find(name); was == before.end())
            would.push_back(fmt::format("forward {} ({})", describe(forward), name));
        else if (was->second != forward)
            would.push_back(
                fmt::format("change the forward {} from {} to {}", name, describe(was->second), describe(forward)));
}

std::vector<std::string> would_update(const Vm& before, const Vm& after, const VmPatch& patch) {
    std::vector<std::string> would;
    const auto say = [&would](std::string_view what, const auto& was, const auto& is) {
        if (was != is) would.push_back(fmt::format("change {} from {} to {}", what, was, is));
    };
    const auto& b = before.spec;
    const auto& a = after.spec;
    say("owner", before.owner, after.owner);
    if (before.labels != after.labels) would.emplace_back("change labels");
    say("spec.protected", b.is_protected, a.is_protected);
    say("spec.autostart", name_of(b.autostart), name_of(a.autostart));
    say("spec.vcpus", b.vcpus, a.vcpus);
    say("spec.memory_mib", b.memory_mib, a.memory_mib);
    say("spec.disk_gib", b.disk_gib, a.disk_gib);
    say("spec.guest_access", b.guest_access, a.guest_access);
    say_forwards(b.forwards, a.forwards, would);
    const bool resized = b.vcpus != a.vcpus || b.memory_mib != a.memory_mib || b.disk_gib != a.disk_gib;
    const bool runs = is_running(before);
    if (resized && runs && patch.power_on.value_or(true)) would.emplace_back("apply the new size at its next start");
    if (patch.power_on && *patch.power_on != runs)
        would.push_back(fmt::format("{} {}", *patch.power_on ? "start" : "stop", before.name));
    return would;
}

}  // namespace

base::Result<void> VmService::fits_to_grow(const Vm& vm, const VmPatch& patch) const {
    auto after = vm;
    apply_patch(after, patch);
    const auto growth = disk_bytes_of(after.spec) - disk_bytes_of(vm.spec);
    return growth > 0 ? p_.capacity.fits({0, 0, growth}) : base::Result<void>{};
}

VmService::Begun VmService::update(base::Context context, std::string id, VmPatch patch, IfMatch match) {
    auto found = changeable(id, match);
    if (!found) co_return base::fail(found.error());
    std::vector<std::string> makes_way;
    if (auto fits = fits_to_grow(**found, patch); !fits) {
        // As for a create.
        auto made = co_await p_.images.make_way(std::move(fits).error(), {}, context.dry_run);
        if (!made) co_return base::fail(std::move(made).error());
        makes_way = std::move(*made);
        found = changeable(id, match);
        if (!found) co_return base::fail(found.error());
        fits = fits_to_grow(**found, patch);
        if (!fits && !context.dry_run) co_return base::fail(fits.error());
    }
    const Vm before = **found;
    auto after = before;
    apply_patch(after, patch);

    if ((patch.vcpus || patch.memory_mib) && before.observed.power == virt::Power::suspended)
        co_return base::fail(power_conflict(before, "be resized: its memory is saved as it is"));
    if (const auto fits = p_.capacity.fits_host(patch.vcpus.value_or(0), patch.memory_mib.value_or(0)); !fits)
        co_return base::fail(fits.error());
    const auto growth = disk_bytes_of(after.spec) - disk_bytes_of(before.spec);
    if (is_running(before)) {
        // What it may take at its next start is promised now, or refused now.
        if (const auto fits = fits_to_start(after); (patch.vcpus || patch.memory_mib) && !fits)
            co_return base::fail(fits.error());
    } else if (patch.power_on.value_or(false)) {
        if (const auto fits = fits_to_start(after); !fits) co_return base::fail(fits.error());
    }

    Verb verb{.kind = "vm.update"};
    verb.would = std::move(makes_way);
    for (auto& step : would_update(before, after, patch)) verb.would.push_back(std::move(step));
    verb.needs = p_.capacity.needs({after.spec.vcpus, after.spec.memory_mib, growth}, before.id);
    verb.edit = [patch](Vm& vm) { apply_patch(vm, patch); };
    verb.rollback = [before, patch](Vm& vm) { put_back(vm, before, patch); };
    verb.claim = patch.power_on.value_or(false) && !is_running(before);
    const bool differs = to_document(before) != to_document(after);
    co_return co_await begin(
        std::move(context), **found, std::move(verb),
        [this, vm_id = before.id, before, patch, differs](OperationControl& control) -> Done {
            auto done = co_await apply_update(control, vm_id, patch, differs);
            if (done || control.stopping()) co_return done;
            // Back to what it was, as far as the hypervisor lets us.
            const auto& s = before.spec;
            if (patch.vcpus || patch.memory_mib)
                (void)co_await p_.hypervisor.resize(vm_id, s.vcpus, s.memory_mib, control.stalled());
            if (patch.autostart)
                (void)co_await p_.hypervisor.set_autostart(vm_id, s.autostart == Autostart::always, control.stalled());
            auto after_all = before;
            if (const auto* vm = p_.index.find(vm_id)) {
                after_all.plan = vm->plan;
                after_all.spec.disk_gib = std::max(s.disk_gib, vm->plan.root_gib);
            }
            (void)co_await p_.hypervisor.set_record(vm_id, to_document(after_all), control.stalled());
            co_return done;
        });
}

// Makes the domain what the spec says, power apart: for a change that was cut off, nobody knows where.
VmService::Done VmService::apply_spec(OperationControl& control, std::string id) {
    const auto* vm = p_.index.find(id);
    if (vm == nullptr || !vm->observed.present) co_return base::fail(base::Errc::not_found, "the domain is gone");
    VmPatch all;
    all.autostart = vm->spec.autostart;
    all.vcpus = vm->spec.vcpus;
    all.memory_mib = vm->spec.memory_mib;
    all.disk_gib = vm->spec.disk_gib;
    co_return co_await apply_update(control, std::move(id), std::move(all), true);
}

VmService::Done VmService::apply_update(OperationControl& control, std::string id, VmPatch patch, bool record_changed) {
    const auto* vm = p_.index.find(id);
    if (vm == nullptr) co_return base::fail(base::Errc::not_found, "the VM is gone");
    const auto spec = vm->spec;
    if (record_changed) {
        (void)co_await control.begin_step("record");
        if (auto done = co_await p_.hypervisor.set_record(id, to_document(*vm), control.stalled()); !done)
            co_return done;
    }
    if (patch.autostart) {
        (void)co_await control.begin_step("autostart");
        if (auto done =
                co_await p_.hypervisor.set_autostart(id, *patch.autostart == Autostart::always, control.stalled());
            !done)
            co_return done;
    }
    if (patch.vcpus || patch.memory_mib) {
        (void)co_await control.begin_step("resize");
        if (auto done = co_await p_.hypervisor.resize(id, spec.vcpus, spec.memory_mib, control.stalled()); !done)
            co_return done;
    }
    vm = p_.index.find(id);
    const bool off =
        vm != nullptr && (vm->observed.power == virt::Power::off || vm->observed.power == virt::Power::crashed);
    if (patch.disk_gib && off) {
        (void)co_await control.begin_step("grow");
        if (auto done = co_await apply_growth(id); !done) co_return done;
    }
    vm = p_.index.find(id);
    if (vm == nullptr || !patch.power_on) co_return base::Result<void>{};
    if (*patch.power_on && !is_running(*vm)) co_return co_await power_on(control, id);
    if (!*patch.power_on && is_running(*vm)) co_return co_await power_off(control, id, {});
    co_return base::Result<void>{};
}

}  // namespace ghost::agent
