// VMs, domains, files, memory and database.
#include "agent/operations/operation_service.hpp"
#include "agent/vm/vm_document.hpp"
#include "simulation/invariants.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

namespace ghost::simulation {
namespace json = boost::json;
namespace {

std::string text(const json::object& object, std::string_view member) {
    const auto* const found = object.if_contains(member);
    return found != nullptr && found->is_string() ? std::string{found->get_string()} : std::string{};
}

bool left_something(const json::object& operation) {
    const auto* const error = operation.if_contains("error");
    return error != nullptr && error->is_object() && error->get_object().contains("left_behind");
}

}  // namespace

void Inspection::creates_and_deletes_are_whole() {
    std::map<std::string, const json::object*> created;
    std::set<std::string> deleted;
    std::set<std::string> half_deleted;  // their domains may be gone
    std::set<std::string> adopted;
    for (const auto& [id, operation] : by_id_) {
        const auto target = text(operation->at("target").as_object(), "id");
        if (text(*operation, "kind") == "vm.create") created[target] = operation;
        if (text(*operation, "kind") == "vm.adopt" && text(*operation, "state") == "succeeded") adopted.insert(target);
        if (text(*operation, "kind") == "vm.delete")
            (text(*operation, "state") == "succeeded" ? deleted : half_deleted).insert(target);
    }
    const auto& index = s_.machine.app().vms();
    for (const auto& [id, operation] : created) {
        const auto* const vm = index.find(id);
        const bool made = text(*operation, "state") == "succeeded";
        if (deleted.contains(id) || (!made && !left_something(*operation))) {
            if (vm != nullptr) trace_.violated("VM {} is there, and ought not to be", id);
            if (s_.machine.hypervisor.find(id) != nullptr)
                trace_.violated("the domain of VM {} is there, and ought not to be", id);
        } else if (vm == nullptr) {
            trace_.violated("VM {} is gone, and nobody deleted it", id);
        } else if (made && vm->phase == agent::Phase::ready) {
            for (const auto& path : {vm->plan.root_disk, vm->plan.seed})
                if (!s_.machine.files.exists(path)) trace_.violated("VM {} is ready and has no {}", id, path);
            for (const auto& [name, path] : vm->plan.disks)
                if (!s_.machine.files.exists(path)) trace_.violated("VM {} is ready and has no {}", id, path);
            if (s_.machine.hypervisor.find(id) == nullptr && !s_.surroundings.undefined_by_others(id) &&
                !half_deleted.contains(id))
                trace_.violated("VM {} is ready and has no domain", id);
        }
    }
    for (const auto& [id, vm] : index.all())
        if (vm.managed && !created.contains(id) && !adopted.contains(id))
            trace_.violated("VM {} was created by nobody", id);
    for (const auto& id : adopted) {
        const auto* const vm = index.find(id);
        if (deleted.contains(id) && vm != nullptr && vm->managed)
            trace_.violated("VM {} was adopted and deleted, and is there", id);
        if (!deleted.contains(id) && (vm == nullptr || !vm->managed))
            trace_.violated("VM {} was adopted, and isn't ours any more", id);
    }
}

void Inspection::vms_are_as_the_hypervisor_says() {
    const auto& domains = s_.machine.hypervisor.all();
    for (const auto& item : vms_) {
        const auto& vm = item.as_object();
        const auto id = text(vm, "id");
        const auto& status = vm.at("status").as_object();
        const auto phase = text(status, "phase");
        if (phase != "ready" && phase != "error") trace_.violated("VM {} is {} when all is quiet", id, phase);
        if (!status.at("operation").is_null()) trace_.violated("VM {} has an operation when all is quiet", id);
        const auto power = text(status, "power");
        const auto domain = domains.find(id);
        if (domain == domains.end()) {
            if (power != "unknown" && phase == "ready") trace_.violated("VM {} is {} and has no domain", id, power);
            if (power == "running") trace_.violated("VM {} is {} and has no domain", id, power);
        } else if (power != virt::name_of(domain->second.power)) {
            trace_.violated("VM {} is shown {} and is {}", id, power, virt::name_of(domain->second.power));
        }
    }
    for (const auto& [id, domain] : domains) {
        const auto* const vm = s_.machine.app().vms().find(id);
        if (vm == nullptr)
            trace_.violated("nobody knows the domain {} ({})", id, domain.name);
        else if (!vm->managed && !s_.surroundings.defined_by_others(id))
            trace_.violated("the domain {} ({}) was ours and isn't known as such", id, domain.name);
    }
}

void Inspection::files_have_owners() {
    const std::string base = Machine::state_dir;
    std::set<std::string> owned{base + "/identity.json", base + "/core/key.pem", base + "/core/cert.pem",
                                // Half written by one that died.
                                base + "/core/.cert.pem.new", base + "/.identity.json.new"};
    for (const auto& [id, vm] : s_.machine.app().vms().all()) {
        if (!vm.managed) continue;
        owned.insert({vm.plan.root_disk, vm.plan.seed, vm.plan.console_log, vm.plan.console_socket});
        // Its name may have moved to a newer one.
        owned.insert(s_.machine.app().images().path_of(vm.plan.image_digest, vm.plan.image_format));
        // What was half written when its create couldn't be taken back goes with it.
        if (vm.phase == agent::Phase::error)
            for (const auto* file : {"root.qcow2", "data.qcow2", "seed.iso"})
                owned.insert(fmt::format("{}/disks/.{}-{}.new", base, id, file));
        for (const auto& [name, path] : vm.plan.disks) owned.insert(path);
    }
    std::set<std::string> blobs;
    for (const auto& item : images_) {
        const auto& image = item.as_object();
        const auto name = text(image, "name");
        if (text(image, "state") != "available") {
            trace_.violated("the image {} is {} when all is quiet", name, text(image, "state"));
            continue;
        }
        const auto digest = text(image, "digest");
        const auto path = base + "/images/" + digest.substr(digest.find(':') + 1) + "." + text(image, "format");
        blobs.insert(path);
        const auto* const file = s_.machine.files.find(path);
        if (file == nullptr || file->bytes.size() != image.at("size_bytes").to_number<std::size_t>())
            trace_.violated("the image {} has no blob, or a torn one", name);
    }
    for (const auto& path : s_.machine.files.files()) {
        if (!path.starts_with(base)) continue;
        // What an import can't clear away goes at the next start.
        const bool temporary = path.find("/images/.import-") != std::string::npos ||
                               path.find("/images/.proof-") != std::string::npos ||
                               (path.find("/images/..download-") != std::string::npos && path.ends_with(".new"));
        if (temporary && s_.faults.of_files()) continue;
        // What is left of a download is kept for who goes on with it.
        if (path.find("/images/.download-") != std::string::npos) continue;
        if (s_.surroundings.littered(path)) continue;
        if (!owned.contains(path) && !blobs.contains(path)) trace_.violated("nobody owns the file {}", path);
    }
}

void Inspection::memory_is_at_rest() {
    auto& app = s_.machine.app();
    if (app.operations().unfinished() > 0) trace_.violated("{} operations live", app.operations().unfinished());
    for (const auto& [id, operation] : by_id_) {
        const auto target = text(operation->at("target").as_object(), "id");
        if (app.vms().claimed(target)) trace_.violated("VM {} is claimed when all is quiet", target);
        if (app.operations().busy(target) || app.operations().busy("image:" + target))
            trace_.violated("{} is locked when all is quiet", target);
    }
    const auto answer = s_.machine.get("/v1/resources");
    if (!answer || answer->status != 200) return trace_.violated("/v1/resources doesn't answer");
    const auto shown = json::parse(answer->body);
    std::uint64_t disk = 0;
    std::uint64_t memory = 0;
    for (const auto& [id, vm] : app.vms().all()) {
        if (vm.managed) disk += agent::disk_bytes_of(vm.spec);
        if (agent::is_running(vm)) memory += std::max(vm.spec.memory_mib, vm.observed.live_memory_mib);
    }
    if (shown.at("disk_bytes").at("allocated").to_number<std::uint64_t>() != disk)
        trace_.violated("{} bytes of disk are allocated, and VMs have {}",
                        shown.at("disk_bytes").at("allocated").to_number<std::uint64_t>(), disk);
    if (shown.at("memory_mib").at("allocated").to_number<std::uint64_t>() != memory)
        trace_.violated("{} MiB of memory are allocated, and VMs have {}",
                        shown.at("memory_mib").at("allocated").to_number<std::uint64_t>(), memory);
}

void Inspection::database_is_as_memory() {
    const auto loaded = std::make_shared<std::optional<base::Result<storage::StoredState>>>();
    boost::asio::co_spawn(s_.machine.loop, s_.machine.store().load(),
                          [loaded](const std::exception_ptr& error, base::Result<storage::StoredState> state) {
                              if (!error) *loaded = std::move(state);
                          });
    s_.machine.settle();
    if (!*loaded || !**loaded) return trace_.violated("the database can't be read");
    const auto& state = ***loaded;
    std::set<std::string> rows;
    for (const auto& row : state.vms) {
        rows.insert(row.id);
        const auto* const vm = s_.machine.app().vms().find(row.id);
        if (vm == nullptr)
            trace_.violated("the database has VM {}, and memory hasn't", row.id);
        else if (agent::to_document(*vm) != row.document)
            trace_.violated("VM {} is in memory {} and in the database {}", row.id, agent::to_document(*vm),
                            row.document);
    }
    for (const auto& [id, vm] : s_.machine.app().vms().all())
        if (vm.managed && !rows.contains(id)) trace_.violated("VM {} isn't in the database", id);
    if (state.operations.size() != by_id_.size())
        trace_.violated("the database has {} operations, and memory {}", state.operations.size(), by_id_.size());
    for (const auto& row : state.operations) {
        const auto operation = s_.machine.app().operations().find(row.id);
        if (!operation || agent::to_document(*operation) != row.document)
            trace_.violated("operation {} is another one in the database: {}", row.id, row.document);
    }
    if (state.images.size() != images_.size())
        trace_.violated("the database has {} images, and memory {}", state.images.size(), images_.size());
}

}  // namespace ghost::simulation
