// Creating a VM: image -> disk -> seed -> define -> start -> (address or readiness), each
// step with its undo.
#include "agent/vm/cloud_init.hpp"
#include "agent/vm/vm_service.hpp"
#include "base/ids.hpp"
#include "base/shielded.hpp"
#include "storage/seed_image.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

// In an operation's plan.
constexpr std::string_view wait_for_key = "wait_for";
constexpr std::string_view disk_given = "disk_given";                // the size is the caller's, not ours
constexpr std::string_view waits_for_address = "waits_for_address";  // of earlier versions: a bool

constexpr std::size_t longest_socket_path = 107;  // bytes, of what a sockaddr_un holds

WaitFor planned_wait(const json::object& plan) {
    if (const auto* wait = plan.if_contains(wait_for_key); wait != nullptr && wait->is_string())
        return wait_for_named(wait->get_string());
    const auto* waits = plan.if_contains(waits_for_address);
    return waits != nullptr && waits->is_bool() && waits->get_bool() ? WaitFor::address : WaitFor::running;
}

base::Error field_error(std::string pointer, std::string detail) {
    base::Error error{base::Errc::validation_failed, fmt::format("{}: {}", pointer, detail)};
    error.faults.push_back({std::move(pointer), std::move(detail)});
    return error;
}

std::vector<std::string> would_create(const Vm& vm) {
    std::vector<std::string> would;
    if (vm.plan.image_digest.empty()) would.push_back(fmt::format("fetch the image {}", vm.spec.image));
    would.push_back(fmt::format("make a disk of {} GiB over the image {}", vm.spec.disk_gib, vm.spec.image));
    for (const auto& [name, disk] : vm.spec.disks)
        would.push_back(fmt::format("make the disk {} of {} GiB", name, disk.size_gib));
    would.emplace_back("make its cloud-init seed");
    would.push_back(
        fmt::format("define the domain {}: {} vCPUs, {} MiB of memory", vm.name, vm.spec.vcpus, vm.spec.memory_mib));
    for (const auto& [name, forward] : vm.spec.forwards)
        would.push_back(fmt::format("forward {} ({})", describe(forward), name));
    if (vm.spec.power_on) would.push_back("start " + vm.name);
    return would;
}

Demand demand_of(const VmSpec& spec) {
    return {spec.power_on ? spec.vcpus : 0, spec.power_on ? spec.memory_mib : 0, disk_bytes_of(spec)};
}

std::uint64_t gib_up(std::uint64_t bytes) { return (bytes + (1ULL << 30) - 1) >> 30; }

// The VM stands on the image's blob from now on, with a disk that holds it.
base::Result<void> stand_on(Vm& vm, const Image& image, bool size_is_the_callers) {
    const auto least = gib_up(image.virtual_size);
    if (vm.spec.disk_gib < least) {
        if (size_is_the_callers)
            return base::fail(
                field_error("/spec/disk_gib", fmt::format("{} needs at least {} GiB", image.name, least)));
        vm.spec.disk_gib = least;
    }
    vm.plan.image_digest = image.digest;
    vm.plan.image_format = image.format;
    vm.plan.root_gib = vm.spec.disk_gib;
    return {};
}

}  // namespace

base::Result<Vm> VmService::plan(const CreateVm& request) const {
    if (!p_.images.can_provide(request.spec.image))
        return base::fail(field_error(
            "/spec/image",
            fmt::format("there is no image named {}, and the catalogue has none; add it first", request.spec.image)));
    Vm vm;
    vm.id = base::make_uuid(p_.clock, p_.random);
    vm.name = request.name;
    vm.owner = request.owner;
    vm.labels = request.labels;
    vm.created_at = p_.clock.wall();
    vm.spec = request.spec;
    vm.plan.installation = placement_.installation;
    vm.plan.root_gib = vm.spec.disk_gib;
    // One that is still to be fetched is looked at when it is here.
    if (const auto* image = p_.images.find(request.spec.image);
        image != nullptr && image->state == ImageState::available)
        if (auto stands = stand_on(vm, *image, request.disk_given); !stands)
            return base::fail(std::move(stands).error());
    vm.plan.root_disk = fmt::format("{}/{}-root.qcow2", placement_.disks, vm.id);
    for (const auto& [name, disk] : vm.spec.disks)
        vm.plan.disks[name] = fmt::format("{}/{}-{}.qcow2", placement_.disks, vm.id, name);
    vm.plan.seed = fmt::format("{}/{}-seed.iso", placement_.disks, vm.id);
    vm.plan.console_log = fmt::format("{}/{}.log", placement_.consoles, vm.id);
    if (auto socket = fmt::format("{}/{}.sock", placement_.consoles, vm.id); socket.size() <= longest_socket_path)
        vm.plan.console_socket = std::move(socket);
    for (const auto& [name, nic] : vm.spec.nics) vm.plan.macs[name] = base::make_mac(p_.random);
    return vm;
}

// Everything but the room for it.
base::Result<Vm> VmService::admissible(const CreateVm& request) const {
    if (auto refused = p_.drain.refusal(); !refused) return base::fail(std::move(refused).error());
    if (const auto ready = ready_for_work(); !ready) return base::fail(ready.error());
    if (placement_.disks.empty())
        return base::fail(base::Errc::hypervisor_unavailable,
                          "where disks go is not known: the storage pool is not there yet");
    if (auto taken = name_taken(request.name, "")) return base::fail(std::move(*taken));
    return plan(request);
}

VmService::Begun VmService::create(base::Context context, CreateVm request) {
    auto planned = admissible(request);
    if (!planned) co_return base::fail(planned.error());
    auto demand = demand_of(planned->spec);
    std::vector<std::string> makes_way;
    // Also a VM that is made switched off is to start some day.
    const auto fits_host = p_.capacity.fits_host(planned->spec.vcpus, planned->spec.memory_mib);
    if (auto fits = p_.capacity.fits(demand); !fits) {
        if (!fits_host) co_return base::fail(std::move(fits).error());
        // Images that nobody uses may make way. That takes a while: all is judged anew.
        auto made = co_await p_.images.make_way(std::move(fits).error(), request.spec.image, context.dry_run);
        if (!made) co_return base::fail(std::move(made).error());
        makes_way = std::move(*made);
        planned = admissible(request);
        if (!planned) co_return base::fail(planned.error());
        demand = demand_of(planned->spec);
        fits = p_.capacity.fits(demand);
        if (!fits && !context.dry_run) co_return base::fail(fits.error());
    }
    if (!fits_host) co_return base::fail(fits_host.error());

    const auto& spec = planned->spec;
    const auto id = planned->id;
    OperationRequest operation;
    operation.kind = "vm.create";
    operation.target = {"vm", id, request.name};
    operation.context = std::move(context);
    operation.cancellable = true;
    operation.result_href = "/v1/vms/" + id;
    if (operation.context.dry_run) {
        operation.would = std::move(makes_way);
        for (auto& step : would_create(*planned)) operation.would.push_back(std::move(step));
        operation.needs = p_.capacity.needs(demand);
        co_return p_.operations.preview(std::move(operation));
    }

    // Name, room and image are taken from here on, before the first suspension.
    p_.index.put(*planned);
    if (spec.power_on) p_.index.claim(id);
    operation.plan[wait_for_key] = name_of(request.wait_for);
    operation.plan[disk_given] = request.disk_given;
    operation.accept_with.emplace_back(new_row(id));
    auto begun = co_await p_.operations.begin(
        std::move(operation), [this, id, user_data = std::move(request.user_data), wait_for = request.wait_for](
                                  OperationControl& control) { return run_create(control, id, user_data, wait_for); });
    if (!begun) p_.index.erase(id);
    co_return begun;
}

asio::awaitable<Outcome> VmService::run_create(OperationControl& control, std::string id, std::string user_data,
                                               WaitFor wait_for) {
    p_.index.touch(id);
    Outcome outcome;
    outcome.result =
        co_await run_steps(control, p_.clock, p_.log, create_steps(control, id, std::move(user_data), wait_for));
    if (!outcome.result) {
        if (!control.stopping()) co_await settle_undone(outcome, id);
        co_return outcome;
    }
    control.no_more_cancel();
    co_await p_.observer.refresh(id);
    // It isn't ready until that is on disk; but what a forced stop writes meanwhile must not take it back.
    becoming_ready_.insert(id);
    journal(outcome, id);
    if (const auto* vm = p_.index.find(id)) {
        if (auto image = p_.images.used(vm->spec.image)) outcome.changes.emplace_back(std::move(*image));
    }
    outcome.applied = [this, id] {
        p_.index.release(id);
        becoming_ready_.erase(id);
        p_.index.change(id, [](Vm& vm) {
            vm.phase = Phase::ready;
            if (!vm.observed.present) vm.observed.power = virt::Power::unknown;  // it vanished meanwhile
        });
        if (on_created) on_created();
    };
    co_return outcome;
}

// A create that left nothing behind is forgotten. Otherwise what is left shows, in phase error, and a delete takes it
// away.
asio::awaitable<void> VmService::settle_undone(Outcome& outcome, std::string id) {
    const auto* vm = p_.index.find(id);
    const auto image = vm != nullptr ? vm->spec.image : std::string{};
    if (!outcome.result.error().facts.contains("left_behind")) {
        outcome.changes.emplace_back(storage::EraseVm{id});
        outcome.applied = [this, id] { p_.index.erase(id); };
        p_.images.erase_lost_record(outcome, image);
        co_return;
    }
    p_.index.release(id);
    co_await keep(outcome, id, Phase::error);
    p_.images.erase_lost_record(outcome, image);
}

// A create that a crash cut off is gone on with where it was: it was accepted. Only what can't be any more is undone.
asio::awaitable<Outcome> VmService::resume_create(OperationControl& control, std::string id) {
    const auto wait_for = planned_wait(control.operation().plan);
    if (const auto* vm = p_.index.find(id); vm != nullptr && !control.operation().undoing) {
        if (vm->spec.power_on) p_.index.claim(id);
        const bool on = vm->spec.power_on;
        const Demand demand{on ? vm->spec.vcpus : 0, on ? vm->spec.memory_mib : 0, 0};
        if (const auto fits = p_.capacity.fits(demand, id); !fits) {
            Outcome outcome;
            outcome.result =
                co_await undo_steps(control, p_.clock, p_.log, create_steps(control, id, {}, wait_for), fits.error());
            if (!control.stopping()) co_await settle_undone(outcome, id);
            co_return outcome;
        }
    }
    co_return co_await run_create(control, id, {}, wait_for);
}

std::vector<Step> VmService::create_steps(OperationControl& control, std::string id, std::string user_data,
                                          WaitFor wait_for) {
    const auto* found = p_.index.find(id);
    if (found == nullptr) return {};
    const auto vm = *found;
    std::vector<Step> steps;
    steps.push_back({"image", [this, id, &control] { return take_image(control, id); }, {}});
    const auto seed_is_there = [this, vm]() -> asio::awaitable<bool> {
        const auto file = co_await p_.files.stat(vm.plan.seed);
        co_return file && file->has_value();
    };
    const auto domain_is_there = [this, vm]() -> asio::awaitable<bool> {
        co_await p_.observer.refresh(vm.id);
        const auto* now = p_.index.find(vm.id);
        co_return now != nullptr && now->observed.present;
    };
    steps.push_back({"disk",
                     [this, vm] { return make_disks(as_planned(vm)); },
                     [this, vm] { return remove_disks(vm); },
                     {},  // those that are there may be half made
                     [this, vm] { return disks_are_there(vm); }});
    steps.push_back({"seed",
                     [this, vm, user_data = std::move(user_data)] { return write_seed(as_planned(vm), user_data); },
                     [this, vm] { return p_.files.remove(vm.plan.seed); },
                     // It is written whole or not at all, and what went into it isn't kept elsewhere.
                     seed_is_there, seed_is_there});
    steps.push_back({"define", [this, vm, &control] { return define(as_planned(vm), control.stalled()); },
                     [this, vm, &control]() -> Done {
                         auto gone = co_await p_.hypervisor.undefine(vm.id, control.stalled());
                         if (gone) gone = co_await remove_console(vm);
                         co_return gone;
                     },
                     domain_is_there, domain_is_there});
    if (vm.spec.power_on) {
        steps.push_back({"start",
                         [this, vm, &control]() -> Done {
                             if (auto networks = co_await ensure_networks(control, vm); !networks) co_return networks;
                             // A forced stop passed by meanwhile: it is the last word.
                             if (const auto* now = p_.index.find(vm.id); now != nullptr && !now->spec.power_on)
                                 co_return base::Result<void>{};
                             auto started = co_await p_.hypervisor.start(vm.id, control.stalled());
                             // Its event may still be under way; what follows looks at the index.
                             if (started) co_await p_.observer.refresh(vm.id);
                             co_return started;
                         },
                         [this, vm, &control]() -> Done {
                             auto off = co_await p_.hypervisor.power_off(vm.id, control.stalled());
                             if (!off && off.error().code == base::Errc::not_found) off = {};
                             co_return off;
                         },
                         [this, vm] { return has_come_up(vm.id); }});
        if (wait_for != WaitFor::running)
            steps.push_back({std::string{name_of(wait_for)},
                             [this, vm, &control, wait_for] {
                                 control.let_others_pass();
                                 return wait_for == WaitFor::address ? wait_for_address(vm.id) : wait_for_guest(vm.id);
                             },
                             {}});
    }
    return steps;
}

// As it is after the steps that went before.
Vm VmService::as_planned(const Vm& vm) const {
    const auto* now = p_.index.find(vm.id);
    return now != nullptr ? *now : vm;
}

// Its blob is the VM's from here on: nothing takes it away any more.
VmService::Done VmService::take_image(OperationControl& control, std::string id) {
    const auto* vm = p_.index.find(id);
    if (vm == nullptr) co_return base::fail(base::Errc::not_found, "the VM is gone");
    if (vm->plan.image_digest.empty()) {
        const auto name = vm->spec.image;
        if (auto provided = co_await p_.images.provide(control, name); !provided) co_return provided;
        // No suspension between here and the plan that holds it.
        vm = p_.index.find(id);
        const auto* image = p_.images.find(name);
        if (vm == nullptr || image == nullptr)
            co_return base::fail(base::Errc::not_found, "the image is gone: " + name);
        auto planned = *vm;
        const auto* const given = control.operation().plan.if_contains(disk_given);
        const bool size_is_the_callers = given != nullptr && given->is_bool() && given->get_bool();
        if (auto stands = stand_on(planned, *image, size_is_the_callers); !stands) co_return stands;
        if (const auto fits = p_.capacity.fits({0, 0, disk_bytes_of(planned.spec)}, id); !fits) co_return fits;
        p_.index.change(id, [&planned](Vm& v) {
            v.spec.disk_gib = planned.spec.disk_gib;
            v.plan = planned.plan;
        });
        storage::Changes changes;
        changes.emplace_back(changed_row(id));
        if (auto kept = co_await base::shielded(p_.store.commit(std::move(changes))); !kept) co_return kept;
        vm = p_.index.find(id);
    }
    const auto path = p_.images.path_of(vm->plan.image_digest, vm->plan.image_format);
    const auto file = co_await p_.files.stat(path);
    if (!file) co_return base::fail(file.error());
    if (!file->has_value() || !(*file)->regular)
        co_return base::fail(base::Errc::not_found, "the image's file is gone: " + path);
    co_return base::Result<void>{};
}

VmService::Done VmService::write_seed(Vm vm, std::string user_data) {
    if (user_data.empty() && !vm.spec.cloud_init.user_data_sha256.empty())
        co_return base::fail(base::Errc::interrupted,
                             "the agent stopped before the VM's user_data was used, and it isn't kept: ask again");
    auto image =
        co_await p_.files.make([files = seed_files(vm, user_data)] { return storage::build_seed_image(files); });
    if (!image) co_return base::fail(image.error());
    co_return co_await p_.files.write(vm.plan.seed, std::move(*image), 0600);
}

VmService::Done VmService::make_disks(Vm vm) {
    const auto backing = p_.images.path_of(vm.plan.image_digest, vm.plan.image_format);
    if (auto made = co_await p_.volumes.create_overlay(vm.plan.root_disk, backing, vm.plan.image_format,
                                                       vm.spec.disk_gib << 30);
        !made)
        co_return made;
    for (const auto& [name, disk] : vm.spec.disks)
        if (auto made = co_await p_.volumes.create_blank(vm.plan.disks.at(name), disk.size_gib << 30); !made)
            co_return made;
    co_return base::Result<void>{};
}

asio::awaitable<bool> VmService::disks_are_there(Vm vm) {
    std::vector<std::string> paths{vm.plan.root_disk};
    for (const auto& [name, path] : vm.plan.disks) paths.push_back(path);
    for (const auto& path : paths)
        if (const auto file = co_await p_.files.stat(path); !file || !file->has_value()) co_return false;
    co_return true;
}

VmService::Done VmService::remove_disks(Vm vm) {
    auto result = co_await remove_disk(vm, vm.plan.root_disk);
    for (const auto& [name, path] : vm.plan.disks)
        if (auto removed = co_await remove_disk(vm, path); !removed) result = removed;
    co_return result;
}

// Of an adopted VM only what is a file and nobody else's.
VmService::Done VmService::remove_disk(Vm vm, std::string path) {
    if (path.empty()) co_return base::Result<void>{};
    if (!vm.plan.adopted) co_return co_await p_.volumes.remove(std::move(path));
    const auto file = co_await p_.files.stat(path);
    if (!file) co_return base::fail(file.error());
    bool others = false;
    for (const auto& [id, other] : p_.index.all())
        others = others ||
                 (id != vm.id && std::ranges::find(other.observed.disk_paths, path) != other.observed.disk_paths.end());
    if (!file->has_value() || !(*file)->regular || others) co_return base::Result<void>{};
    co_return co_await p_.volumes.remove(std::move(path));
}

VmService::Done VmService::define(Vm vm, virt::Hypervisor::Stalled stalled) {
    virt::DomainSpec spec;
    spec.uuid = vm.id;
    spec.name = vm.name;
    spec.vcpus = vm.spec.vcpus;
    spec.memory_mib = vm.spec.memory_mib;
    spec.firmware = vm.spec.firmware;
    spec.autostart = vm.spec.autostart == Autostart::always;
    const auto backing = p_.images.path_of(vm.plan.image_digest, vm.plan.image_format);
    spec.disks.push_back({"root", vm.plan.root_disk, backing, vm.plan.image_format});
    for (const auto& [name, path] : vm.plan.disks) spec.disks.push_back({name, path, "", ""});
    spec.seed_path = vm.plan.seed;
    for (const auto& [name, nic] : vm.spec.nics) spec.nics.push_back({name, nic.network, vm.plan.macs.at(name)});
    spec.console_log = vm.plan.console_log;
    spec.console_socket = vm.plan.console_socket;
    auto known = vm;
    known.phase = Phase::ready;
    spec.record = to_document(known);
    co_return co_await p_.hypervisor.define(std::move(spec), std::move(stalled));
}

VmService::Done VmService::ensure_networks(OperationControl& control, Vm vm) {
    std::set<std::string> networks;
    for (const auto& [name, nic] : vm.spec.nics)
        if (!nic.network.empty()) networks.insert(nic.network);  // an adopted VM's NIC may be on a bridge
    for (const auto& name : networks)
        if (const auto network = co_await p_.hypervisor.ensure_network(name, control.stalled()); !network)
            co_return base::fail(network.error());
    co_return base::Result<void>{};
}

}  // namespace ghost::agent
