#include "agent/vm/vm_index.hpp"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

namespace ghost::agent {
namespace {

auto visible(const Observed& o) {
    return std::tie(o.present, o.power, o.power_reason, o.live_vcpus, o.live_memory_mib, o.addresses, o.addresses_from,
                    o.guest.ready, o.guest.reason, o.guest.message, o.ssh_host_keys, o.forwards, o.missing_files,
                    o.monitor_silent);
}

bool restart_required(const Vm& vm) {
    if (!vm.managed || !is_running(vm)) return false;
    const auto& seen = vm.observed;
    return (seen.live_vcpus != 0 && seen.live_vcpus != vm.spec.vcpus) ||
           (seen.live_memory_mib != 0 && seen.live_memory_mib != vm.spec.memory_mib) ||
           (vm.plan.root_gib != 0 && vm.plan.root_gib < vm.spec.disk_gib);
}

}  // namespace

std::vector<Condition> conditions_of(const Vm& vm, base::Wall now) {
    std::vector<Condition> out;
    const auto judged = [&](std::string type, Verdict status, std::string reason, std::string message) {
        auto since = now;
        for (const auto& old : vm.conditions)
            if (old.type == type && old.status == status && old.reason == reason) since = old.since;
        out.push_back({std::move(type), status, std::move(reason), std::move(message), since});
    };
    const auto add = [&](std::string type, bool status, std::string reason) {
        judged(std::move(type), status ? Verdict::yes : Verdict::no, std::move(reason), {});
    };
    const auto& seen = vm.observed;
    if (!seen.present && seen.at != base::Wall{} && vm.phase == Phase::ready)
        add("DomainMissing", true, "vanished_from_hypervisor");
    if (seen.present && vm.phase == Phase::ready && !seen.missing_files.empty())
        add("DiskMissing", true, "file_not_found");
    if (is_running(vm)) {
        const bool has = !seen.addresses.empty();
        add("HasAddress", has, has ? seen.addresses_from : "not_reported_yet");
        if (vm.managed) judged("GuestReady", seen.guest.ready, seen.guest.reason, seen.guest.message);
    }
    if (vm.managed && seen.forwards && !vm.spec.forwards.empty())
        judged("ForwardsReady", seen.forwards->listening ? Verdict::yes : Verdict::no, seen.forwards->reason,
               seen.forwards->message);
    if (vm.managed && vm.phase == Phase::ready && seen.present && seen.power != virt::Power::unknown) {
        const bool on = is_running(vm) || seen.power == virt::Power::suspended;
        if (vm.spec.power_on && !on)
            add("PowerAsWanted", false, seen.power_reason.empty() ? "off" : seen.power_reason);
        else if (!vm.spec.power_on && is_running(vm))
            add("PowerAsWanted", false, "runs_unasked");
        else
            add("PowerAsWanted", true, "as_wanted");
    }
    if (restart_required(vm)) add("RestartRequired", true, "size_changed");
    if (seen.power == virt::Power::running && seen.monitor_silent)
        add("MonitorAnswers", false, "monitor_not_answering");
    if (seen.power == virt::Power::paused && seen.power_reason == "io_error") add("StorageFault", true, "io_error");
    return out;
}

const Vm* VmIndex::find(std::string_view id) const {
    const auto it = vms_.find(id);
    return it == vms_.end() ? nullptr : &it->second;
}

const Vm* VmIndex::find_ref(std::string_view id_or_name) const {
    // A UUID is one in capitals, too (RFC 9562); a name has none.
    std::string id{id_or_name};
    for (auto& c : id)
        if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
    if (const auto* vm = find(id)) return vm;
    const Vm* other = nullptr;
    for (const auto& [other_id, vm] : vms_) {
        if (vm.name != id_or_name) continue;
        if (vm.managed) return &vm;
        other = &vm;
    }
    return other;
}

void VmIndex::put(Vm vm) {
    auto& slot = vms_[vm.id];
    if (!slot.id.empty()) {
        vm.observed = std::move(slot.observed);
        vm.conditions = std::move(slot.conditions);
    }
    slot = std::move(vm);
    bump(slot);
}

void VmIndex::erase(std::string_view id) {
    const auto it = vms_.find(id);
    if (it == vms_.end()) return;
    claims_.erase(it->first);
    const auto erased = vms_.extract(it);
    if (on_erased) on_erased(erased.key());
    if (on_changed) on_changed(erased.key());
    changed_.notify();
}

bool VmIndex::change(std::string_view id, const std::function<void(Vm&)>& how) {
    const auto it = vms_.find(id);
    if (it == vms_.end()) return false;
    how(it->second);
    bump(it->second);
    return true;
}

void VmIndex::observe(std::string_view id, Observed seen) {
    const auto it = vms_.find(id);
    if (it == vms_.end()) return;
    auto& vm = it->second;
    // Nobody had looked for it so far.
    const bool missed = !seen.present && vm.observed.at == base::Wall{} && seen.at != base::Wall{};
    const bool differs = missed || visible(vm.observed) != visible(seen);
    vm.observed = std::move(seen);
    if (differs) bump(vm);
}

void VmIndex::touch(std::string_view id) {
    if (const auto it = vms_.find(id); it != vms_.end()) bump(it->second);
}

void VmIndex::bump(Vm& vm) {
    vm.conditions = conditions_of(vm, clock_.wall());
    vm.revision = next_revision_++;
    if (on_changed) on_changed(vm.id);
    changed_.notify();
}

}  // namespace ghost::agent
