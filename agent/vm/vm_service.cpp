#include "agent/vm/vm_service.hpp"

#include <boost/json/array.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cassert>
#include <memory>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

namespace {

std::vector<std::string_view> allowed_verbs(virt::Power power) {
    switch (power) {
        case virt::Power::running: return {"stop", "restart", "reset", "pause", "suspend", "delete"};
        case virt::Power::paused: return {"resume", "stop", "restart", "reset", "suspend", "delete"};
        case virt::Power::off:
        case virt::Power::crashed: return {"start", "delete"};
        case virt::Power::suspended: return {"start", "delete"};
        case virt::Power::unknown: return {"delete"};
    }
    return {};
}

constexpr std::chrono::minutes outage_patience{10};           // for a hypervisor that went away
constexpr std::string_view power_before = "power_on_before";  // in an operation's plan

bool wanted_power_before(const Operation& operation, bool otherwise) {
    const auto* const before = operation.plan.if_contains(power_before);
    return before != nullptr && before->is_bool() ? before->get_bool() : otherwise;
}

bool has_wanted_power(const Vm& vm) {
    const auto power = vm.observed.power;
    return vm.spec.power_on ? is_running(vm) : power == virt::Power::off || power == virt::Power::crashed;
}

// Whether the VM is what an operation of this kind was to make it, whoever did it in the end.
bool is_reached(std::string_view kind, const Vm& vm) {
    const auto power = vm.observed.power;
    if (kind == "vm.start" || kind == "vm.stop") return has_wanted_power(vm);
    if (kind == "vm.pause") return power == virt::Power::paused;
    if (kind == "vm.resume") return power == virt::Power::running;
    return kind == "vm.suspend" && power == virt::Power::suspended;
}

}  // namespace

void want_power(Vm& vm, bool on) {
    if (vm.spec.power_on == on) return;
    vm.spec.power_on = on;
    ++vm.generation;
}

base::Error power_conflict(const Vm& vm, std::string_view verb) {
    const auto state = virt::name_of(vm.observed.power);
    const auto allowed = allowed_verbs(vm.observed.power);
    base::Error error{base::Errc::state_conflict, fmt::format("{} is {}, so it can't {}; it can {}", vm.name, state,
                                                              verb, fmt::join(allowed, ", "))};
    error.facts["state"] = state;
    error.facts["allowed"] = boost::json::array(allowed.begin(), allowed.end());
    return error;
}

void VmService::restore(const std::vector<storage::VmRow>& rows) {
    for (const auto& row : rows) {
        auto vm = vm_from_document(row.document);
        if (vm)
            p_.index.put(std::move(*vm));
        else
            p_.log.error("a VM's record can't be read", {{"vm", row.id}, {"error", vm.error().detail}});
    }
}

asio::awaitable<void> VmService::remember(std::string id) {
    if (p_.index.find(id) == nullptr) co_return;
    storage::Changes changes;
    changes.emplace_back(new_row(id));
    const auto done = co_await p_.store.commit(std::move(changes));
    if (!done) p_.log.error("a recognised VM can't be written down", {{"vm", id}, {"error", done.error().detail}});
}

void VmService::recover(const Operation& operation) {
    const auto id = operation.target.id;
    if (operation.kind == "vm.adopt") hold_name(operation);
    p_.operations.resume(operation.id, [this, id](OperationControl& control) { return go_on(control, id); });
}

asio::awaitable<Outcome> VmService::go_on(OperationControl& control, std::string id) {
    // Whatever is to be done needs the hypervisor's word first.
    while (!p_.observer.synced() && !control.stopping()) co_await p_.observer.synced_changed().wait();
    Outcome outcome;
    outcome.result = base::fail(interrupted());
    if (control.stopping()) co_return outcome;
    const auto& kind = control.operation().kind;
    if (kind == "vm.create") co_return co_await resume_create(control, id);
    if (kind == "vm.delete") co_return co_await run_remove(control, id);
    if (kind == "vm.adopt") co_return co_await run_adopt(control, id);
    outcome.result = base::fail(base::Errc::interrupted,
                                "the agent stopped while this was under way; the VM is as it is observed now");
    const auto* vm = p_.index.find(id);
    if (vm == nullptr) co_return outcome;
    // An agent's start starts and stops nothing but what a restart has taken the power from already: what wasn't
    // reached isn't wanted any more.
    const bool wanted_before = wanted_power_before(control.operation(), vm->spec.power_on);
    if (vm->spec.power_on) (void)co_await has_come_up(id);
    if (kind == "vm.update") outcome.result = co_await apply_spec(control, id);
    vm = p_.index.find(id);
    if (vm == nullptr) co_return outcome;
    if (is_running(*vm) || kind == "vm.restart")
        if (auto gone_on = co_await go_on_with_power(control, id); gone_on)
            outcome.result = co_await judge_by_truth(
                control, id, [kind](const Vm& now) { return is_reached(kind, now); }, std::move(*gone_on));
    // A domain that starts is paused at first; what was seen of it then may be the last so far.
    if (!control.stopping()) co_await p_.observer.refresh(id);
    vm = p_.index.find(id);
    if (vm == nullptr) co_return outcome;
    if (is_reached(kind, *vm)) outcome.result = {};
    if (!has_wanted_power(*vm) && vm->spec.power_on != wanted_before) {
        p_.index.change(id, [wanted_before](Vm& v) { want_power(v, wanted_before); });
        if (outcome.result)
            outcome.result = base::fail(base::Errc::interrupted,
                                        "the agent stopped while this was under way: the power is as before");
    }
    journal(outcome, id);
    outcome.applied = [this, id] { p_.index.touch(id); };
    co_return outcome;
}

base::Result<void> VmService::reachable() const {
    const auto& link = p_.hypervisor.link();
    if (!link.connected)
        return base::fail(base::Errc::hypervisor_unavailable,
                          link.reason.empty() ? "the hypervisor is not connected yet" : link.reason);
    if (!p_.observer.synced())
        return base::fail(base::Errc::hypervisor_unavailable, "the hypervisor's domains are being read");
    return {};
}

base::Result<void> VmService::ready_for_work() const {
    if (auto reached = reachable(); !reached) return reached;
    for (const auto& lane : p_.hypervisor.lanes())
        if (lane.name == "mutate" && lane.breaker_open)
            return base::fail(base::Errc::hypervisor_unavailable, "libvirt doesn't answer: every change is overdue");
    return {};
}

base::Result<const Vm*> VmService::changeable(const std::string& id, const IfMatch& match, bool passes_queues) const {
    const auto* vm = p_.index.find_ref(id);
    if (vm == nullptr) return base::fail(base::Errc::not_found, "no VM " + id);
    if (!vm->managed)
        return base::fail(base::Errc::forbidden,
                          fmt::format("{} was defined by others; it is shown, and left alone", vm->name));
    if (!match.empty() && std::ranges::find(match, vm->generation) == match.end()) {
        base::Error stale{
            base::Errc::precondition_failed,
            fmt::format("{} is at generation {} by now, not {}", vm->name, vm->generation, fmt::join(match, " or "))};
        stale.facts["generation"] = vm->generation;
        return base::fail(std::move(stale));
    }
    // What passes the queues has a lane of its own, whatever hangs in the others.
    if (const auto ready = passes_queues ? reachable() : ready_for_work(); !ready) return base::fail(ready.error());
    return vm;
}

storage::VmRow VmService::new_row(const std::string& id) const {
    const auto* vm = p_.index.find(id);
    assert(vm != nullptr);
    return {vm->id, vm->name, to_document(*vm)};
}

storage::UpdateVm VmService::changed_row(const std::string& id) const {
    const auto* vm = p_.index.find(id);
    assert(vm != nullptr);
    return {vm->id, document_of(*vm)};
}

std::string VmService::document_of(const Vm& vm) const {
    if (!becoming_ready_.contains(vm.id)) return to_document(vm);
    auto ready = vm;
    ready.phase = Phase::ready;
    return to_document(ready);
}

void VmService::renew(storage::Changes& changes) const {
    for (auto& change : changes)
        if (auto* const row = std::get_if<storage::UpdateVm>(&change))
            if (const auto* vm = p_.index.find(row->id)) row->document = document_of(*vm);
}

void VmService::journal(Outcome& outcome, const std::string& id) const {
    if (p_.index.find(id) != nullptr) outcome.changes.emplace_back(changed_row(id));
}

// The hypervisor may have gone away between doing and answering: it is waited for, and what it shows then counts.
VmService::Done VmService::judge_by_truth(OperationControl& control, std::string id,
                                          std::function<bool(const Vm&)> reached, base::Result<void> told) {
    if (told || !reached || told.error().code != base::Errc::hypervisor_unavailable) co_return told;
    const auto deadline = p_.clock.now() + outage_patience;
    while (!p_.observer.synced() && !control.stopping() && p_.clock.now() < deadline) {
        control.stalled()();
        co_await p_.observer.synced_changed().wait_until(p_.clock, deadline);
    }
    if (control.stopping() || !p_.observer.synced()) co_return told;
    co_await p_.observer.refresh(id);
    const auto* vm = p_.index.find(id);
    if (vm != nullptr && reached(*vm)) told = {};
    co_return told;
}

VmService::Begun VmService::begin(base::Context context, const Vm& vm, Verb verb, Body body) {
    const auto id = vm.id;
    OperationRequest request;
    request.kind = verb.kind;
    request.target = {"vm", id, vm.name};
    request.context = std::move(context);
    request.exclusive = verb.exclusive;
    request.cancellable = verb.cancellable;
    request.result_href = "/v1/vms/" + id;
    request.plan = std::move(verb.plan);
    if (request.context.dry_run) {
        request.would = std::move(verb.would);
        request.needs = std::move(verb.needs);
        co_return p_.operations.preview(std::move(request));
    }
    // A busy VM stays as it is: begin() below refuses. Otherwise nothing can come between this edit and the lock.
    const bool free = !verb.exclusive || !p_.operations.busy(id);
    const bool edits = verb.edit && free;
    if (edits) {
        auto& unaccepted = unaccepted_[id];
        if (unaccepted.changes++ == 0) unaccepted.before = vm;
        request.plan[power_before] = unaccepted.before.spec.power_on;
        p_.index.change(id, verb.edit);
        request.accept_with.emplace_back(changed_row(id));
    }
    if (verb.claim && free) p_.index.claim(id);
    auto work = [this, id, verb, body = std::move(body)](OperationControl& control) -> asio::awaitable<Outcome> {
        p_.index.touch(id);
        Outcome outcome;
        outcome.result = co_await judge_by_truth(control, id, verb.reached, co_await body(control));
        if (verb.claim) p_.index.release(id);
        if (!control.stopping()) co_await p_.observer.refresh(id);
        if (!outcome.result && verb.rollback) p_.index.change(id, verb.rollback);
        journal(outcome, id);
        outcome.applied = [this, id] { p_.index.touch(id); };
        co_return outcome;
    };
    auto begun = co_await p_.operations.begin(std::move(request), std::move(work));
    if (!begun && free && verb.claim) p_.index.release(id);
    if (edits) settle_change(id, begun.has_value());
    co_return begun;
}

// Of several at a time, which forced stops make possible, the last that is refused takes back what none of them did.
void VmService::settle_change(const std::string& id, bool accepted) {
    const auto it = unaccepted_.find(id);
    assert(it != unaccepted_.end() && it->second.changes > 0);
    auto& [changes, before] = it->second;
    if (const auto* vm = p_.index.find(id); accepted && vm != nullptr)
        before = *vm;
    else if (changes == 1)
        p_.index.change(id, [&before](Vm& now) {
            now.owner = before.owner;
            now.labels = before.labels;
            now.spec = before.spec;
            now.generation = before.generation;
        });
    if (--changes == 0) unaccepted_.erase(it);
}

}  // namespace ghost::agent
