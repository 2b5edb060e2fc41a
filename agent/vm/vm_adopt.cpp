// Taking over a domain that others defined, as it is and running or not: it gets
// our record, maybe a name, and nothing else of it changes.
#include "agent/vm/vm_service.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::seconds look_again{5};  // at a domain, while the hypervisor is away
constexpr std::string_view new_name = "name";  // in an operation's plan

std::uint64_t gib_up(std::uint64_t bytes) { return (bytes + (1ULL << 30) - 1) >> 30; }

std::string name_in(const Operation& adoption) {
    const auto* const name = adoption.plan.if_contains(new_name);
    return name != nullptr && name->is_string() ? std::string{name->get_string()} : std::string{};
}

// The hypervisor may answer another time.
bool passes(base::Errc code) {
    return code == base::Errc::hypervisor_unavailable || code == base::Errc::deadline_exceeded ||
           code == base::Errc::overloaded;
}

base::Error name_needed(const Vm& vm, std::string_view why) {
    auto detail = fmt::format("{} {}: give it a name", vm.name, why);
    base::Error error{base::Errc::validation_failed, "/name: " + detail};
    error.faults.push_back({"/name", std::move(detail)});
    return error;
}

}  // namespace

VmService::Begun VmService::adopt(base::Context context, std::string ref, std::string name) {
    if (auto refused = p_.drain.refusal(); !refused) co_return base::fail(std::move(refused).error());
    if (const auto ready = ready_for_work(); !ready) co_return base::fail(ready.error());
    const auto* vm = p_.index.find_ref(ref);
    if (vm == nullptr) co_return base::fail(base::Errc::not_found, "no VM " + ref);
    if (vm->managed) {
        base::Error ours{base::Errc::state_conflict, vm->name + " is managed already"};
        ours.facts["state"] = "managed";
        ours.facts["allowed"] = boost::json::array{};
        co_return base::fail(std::move(ours));
    }
    if (name.empty() && !is_vm_name(vm->name)) co_return base::fail(name_needed(*vm, "is no name for a VM"));
    const auto wanted = name.empty() ? vm->name : name;
    if (auto taken = name_taken(wanted, vm->id)) co_return base::fail(std::move(*taken));
    if (wanted != vm->name && (is_running(*vm) || vm->observed.power == virt::Power::suspended)) {
        base::Error running{base::Errc::state_conflict,
                            fmt::format("{} is {}, and libvirt renames only what is off: adopt it by its own name, or "
                                        "shut it down first",
                                        vm->name, virt::name_of(vm->observed.power))};
        running.facts["state"] = virt::name_of(vm->observed.power);
        running.facts["allowed"] = boost::json::array{};
        co_return base::fail(std::move(running));
    }
    OperationRequest operation;
    operation.kind = "vm.adopt";
    operation.target = {"vm", vm->id, wanted};
    operation.context = std::move(context);
    operation.result_href = "/v1/vms/" + vm->id;
    operation.plan[new_name] = wanted;
    if (operation.context.dry_run) {
        if (wanted != vm->name) operation.would.push_back(fmt::format("rename {} to {}", vm->name, wanted));
        operation.would.push_back(fmt::format("write our record into the domain {}", wanted));
        operation.needs = p_.capacity.needs({vm->spec.vcpus, vm->spec.memory_mib, 0}, vm->id);
        co_return p_.operations.preview(std::move(operation));
    }
    const auto id = vm->id;
    // Nobody else gets the name while the domain is on its way to it.
    const bool held = !p_.operations.busy(id) && names_held_.emplace(wanted, id).second;
    auto begun = co_await p_.operations.begin(std::move(operation),
                                              [this, id](OperationControl& control) { return run_adopt(control, id); });
    if (!begun && held) names_held_.erase(wanted);
    co_return begun;
}

std::optional<base::Error> VmService::name_taken(const std::string& name, std::string_view by_other_than) const {
    const auto taken_by = [&](const std::string& id) {
        base::Error taken{base::Errc::already_exists, fmt::format("there is a VM named {} already", name)};
        taken.facts["id"] = id;
        return taken;
    };
    for (const auto& [id, other] : p_.index.all())
        if (other.name == name && id != by_other_than) return taken_by(id);
    const auto held = names_held_.find(name);
    if (held != names_held_.end() && held->second != by_other_than) return taken_by(held->second);
    return std::nullopt;
}

void VmService::hold_name(const Operation& adoption) {
    if (auto name = name_in(adoption); !name.empty()) names_held_.emplace(std::move(name), adoption.target.id);
}

asio::awaitable<Outcome> VmService::run_adopt(OperationControl& control, std::string id) {
    auto outcome = co_await try_to_adopt(control, id);
    if (outcome.result || !control.stopping())
        outcome.applied = [this, id, then = std::move(outcome.applied)] {
            std::erase_if(names_held_, [&id](const auto& held) { return held.second == id; });
            if (then) then();
        };
    co_return outcome;
}

// Each step may run again: after a crash all of them do.
asio::awaitable<Outcome> VmService::try_to_adopt(OperationControl& control, std::string id) {
    p_.index.touch(id);
    Outcome outcome;
    auto adopted = co_await plan_adoption(control, id);
    if (!adopted) {
        outcome.result = base::fail(adopted.error());
        co_return outcome;
    }
    (void)co_await control.begin_step("rename");
    outcome.result = co_await p_.hypervisor.rename(id, adopted->name, control.stalled());
    if (outcome.result) {
        (void)co_await control.begin_step("record");
        const auto record = to_document(*adopted);
        outcome.result = co_await p_.hypervisor.set_record(id, record, control.stalled());
        if (!outcome.result && co_await carries_record(control, id, record)) outcome.result = {};
    }
    if (!outcome.result && control.stopping()) outcome.result = base::fail(interrupted());
    if (!outcome.result) co_return outcome;
    outcome.changes.emplace_back(storage::VmRow{id, adopted->name, to_document(*adopted)});
    outcome.applied = [this, vm = *adopted] { p_.index.put(vm); };
    co_return outcome;
}

// The hypervisor may have written the record and not said so: with it the domain would be taken for ours at the next
// start, so what is there decides.
asio::awaitable<bool> VmService::carries_record(OperationControl& control, std::string id, std::string record) {
    const auto domain = co_await look_until_known(control, std::move(id));
    co_return domain && domain->record == record;
}

asio::awaitable<base::Result<virt::DomainInfo>> VmService::look_until_known(OperationControl& control, std::string id) {
    while (!control.stopping()) {
        auto domain = co_await p_.hypervisor.domain(id);
        if (domain || !passes(domain.error().code)) co_return domain;
        control.stalled()();
        (void)co_await p_.clock.sleep_for(look_again);
    }
    co_return base::fail(interrupted());
}

// What our record of it will say.
asio::awaitable<base::Result<Vm>> VmService::plan_adoption(OperationControl& control, std::string id) {
    (void)co_await control.begin_step("inspect");
    const bool may_be_written = control.step_before("record") != nullptr;
    const auto domain = may_be_written ? co_await look_until_known(control, id) : co_await p_.hypervisor.domain(id);
    if (!domain) co_return base::fail(domain.error());
    // Written before a crash: it is ours by that, whatever a new look at it would say.
    if (may_be_written && domain->record)
        if (auto ours = vm_from_document(*domain->record); ours && ours->id == id &&
                                                           ours->plan.installation == placement_.installation &&
                                                           ours->name == name_in(control.operation()))
            co_return std::move(*ours);
    if (!domain->persistent) {
        base::Error gone{base::Errc::state_conflict,
                         domain->name +
                             " is transient: it is gone once it is off. Make it persistent first "
                             "(virsh dumpxml, virsh define)"};
        gone.facts["state"] = "transient";
        gone.facts["allowed"] = boost::json::array{};
        co_return base::fail(std::move(gone));
    }
    auto vm = vm_from_domain(*domain);
    vm.managed = true;
    vm.created_at = p_.clock.wall();
    if (auto name = name_in(control.operation()); !name.empty()) vm.name = std::move(name);
    vm.plan.installation = placement_.installation;
    vm.plan.adopted = true;
    vm.spec.disks.clear();
    for (const auto& disk : domain->disks) {
        if (disk.cdrom || disk.path.empty()) continue;
        auto bytes = co_await p_.volumes.size_of(disk.path, disk.format);
        if (!bytes && bytes.error().code == base::Errc::not_found) bytes = 0;  // it is taken over as it is
        if (!bytes) co_return base::fail(bytes.error());
        if (vm.plan.root_disk.empty()) {
            vm.plan.root_disk = disk.path;
            vm.spec.disk_gib = vm.plan.root_gib = gib_up(*bytes);
        } else {
            vm.plan.disks[disk.target] = disk.path;
            vm.spec.disks[disk.target] = {gib_up(*bytes)};
        }
    }
    for (std::size_t i = 0; i < domain->nics.size(); ++i) vm.plan.macs[fmt::format("eth{}", i)] = domain->nics[i].mac;
    co_return vm;
}

}  // namespace ghost::agent
