#include "agent/vm/vm_document.hpp"

#include "agent/json_reader.hpp"
#include "agent/vm/vm_fields.hpp"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <chrono>
#include <cmath>

namespace ghost::agent {
namespace json = boost::json;
namespace {

json::object spec_json(const VmSpec& spec) {
    json::object cloud_init{{"hostname", spec.cloud_init.hostname},
                            {"user", spec.cloud_init.user},
                            {"ssh_authorized_keys", json::array(spec.cloud_init.ssh_authorized_keys.begin(),
                                                                spec.cloud_init.ssh_authorized_keys.end())}};
    if (!spec.cloud_init.user_data_sha256.empty()) cloud_init["user_data_sha256"] = spec.cloud_init.user_data_sha256;
    json::object disks;
    for (const auto& [name, disk] : spec.disks) disks[name] = json::object{{"size_gib", disk.size_gib}};
    json::object nics;
    for (const auto& [name, nic] : spec.nics) nics[name] = json::object{{"network", nic.network}};
    json::object forwards;
    for (const auto& [name, forward] : spec.forwards)
        forwards[name] = json::object{{"host_address", forward.host_address},
                                      {"host_port", forward.host_port},
                                      {"guest_port", forward.guest_port},
                                      {"protocol", name_of(forward.protocol)}};
    return {{"image", spec.image},
            {"disk_gib", spec.disk_gib},
            {"vcpus", spec.vcpus},
            {"memory_mib", spec.memory_mib},
            {"power", spec.power_on ? "on" : "off"},
            {"autostart", name_of(spec.autostart)},
            {"protected", spec.is_protected},
            {"firmware", spec.firmware == virt::Firmware::uefi ? "uefi" : "bios"},
            {"cloud_init", std::move(cloud_init)},
            {"disks", std::move(disks)},
            {"nics", std::move(nics)},
            {"forwards", std::move(forwards)},
            {"guest_access", spec.guest_access}};
}

json::object labels_json(const Labels& labels) {
    json::object out;
    for (const auto& [key, value] : labels) out[key] = value;
    return out;
}

json::object strings_json(const std::map<std::string, std::string>& strings) {
    json::object out;
    for (const auto& [key, value] : strings) out[key] = value;
    return out;
}

std::map<std::string, std::string> strings_from(const json::object* object) {
    std::map<std::string, std::string> out;
    if (object == nullptr) return out;
    for (const auto& member : *object)
        if (member.value().is_string()) out.emplace(member.key(), member.value().get_string());
    return out;
}

json::array conditions_json(const std::vector<Condition>& conditions) {
    json::array out;
    for (const auto& c : conditions) {
        json::object condition{{"type", c.type}, {"status", name_of(c.status)}, {"reason", c.reason}};
        if (!c.message.empty()) condition["message"] = c.message;
        condition["since"] = base::rfc3339(c.since);
        out.push_back(std::move(condition));
    }
    return out;
}

json::object status_json(const Vm& vm, std::string_view operation, base::Wall now) {
    const auto& seen = vm.observed;
    json::object status{{"phase", name_of(vm.phase)},
                        {"power", virt::name_of(seen.power)},
                        {"power_reason", seen.power_reason},
                        {"addresses", json::array(seen.addresses.begin(), seen.addresses.end())},
                        {"ssh_host_keys", json::array(seen.ssh_host_keys.begin(), seen.ssh_host_keys.end())},
                        {"uptime_s", nullptr},
                        {"usage", nullptr},
                        {"conditions", conditions_json(vm.conditions)},
                        {"operation", nullptr},
                        {"observed_at", nullptr}};
    if (seen.running_since && is_running(vm))
        status["uptime_s"] = std::max<std::int64_t>(
            0, std::chrono::duration_cast<std::chrono::seconds>(now - *seen.running_since).count());
    if (seen.usage)
        status["usage"] = json::object{{"cpu_percent", std::round(seen.usage->cpu_percent * 10) / 10},
                                       {"memory_mib", seen.usage->memory_mib},
                                       {"disk_bytes", seen.usage->disk_bytes}};
    if (!operation.empty()) status["operation"] = fmt::format("/v1/operations/{}", operation);
    if (seen.at != base::Wall{}) status["observed_at"] = base::rfc3339(seen.at);
    return status;
}

base::Error damaged(std::string_view what) {
    return {base::Errc::io_error, fmt::format("damaged VM document: {}", what)};
}

}  // namespace

std::string_view name_of(Autostart autostart) noexcept {
    switch (autostart) {
        case Autostart::never: return "never";
        case Autostart::last: return "last";
        case Autostart::always: return "always";
    }
    return "never";
}

std::string_view name_of(Phase phase) noexcept {
    switch (phase) {
        case Phase::provisioning: return "provisioning";
        case Phase::ready: return "ready";
        case Phase::deleting: return "deleting";
        case Phase::error: return "error";
    }
    return "error";
}

std::string_view name_of(Verdict verdict) noexcept {
    switch (verdict) {
        case Verdict::no: return "false";
        case Verdict::yes: return "true";
        case Verdict::unknown: return "unknown";
    }
    return "unknown";
}

std::string_view name_of(Protocol protocol) noexcept { return protocol == Protocol::udp ? "udp" : "tcp"; }

std::string_view name_of(WaitFor wait_for) noexcept {
    switch (wait_for) {
        case WaitFor::running: return "running";
        case WaitFor::address: return "address";
        case WaitFor::guest_ready: return "guest_ready";
    }
    return "running";
}

WaitFor wait_for_named(std::string_view name) noexcept {
    for (const auto wait : {WaitFor::address, WaitFor::guest_ready})
        if (name == name_of(wait)) return wait;
    return WaitFor::running;
}

std::optional<ForwardRefusal> refusal_of(const Forward& forward, const ForwardRules& rules) {
    if (forward.host_port < first_unprivileged_port && !rules.privileged_ports)
        return ForwardRefusal{"host_port",
                              fmt::format("port {} is below {}: this host's configuration doesn't allow that "
                                          "(forwards.privileged_ports)",
                                          forward.host_port, first_unprivileged_port)};
    if (forward.host_address == "0.0.0.0" && !rules.all_addresses)
        return ForwardRefusal{
            "host_address",
            "0.0.0.0 is every address of this host: its configuration doesn't allow that (forwards.all_addresses)"};
    return std::nullopt;
}

base::Result<CreateVm> read_create(const json::value& body, const VmDefaults& defaults) {
    std::vector<base::Fault> faults;
    if (!body.is_object()) {
        faults.push_back({"", "expected an object, got " + describe(body)});
        return base::fail(validation_error(std::move(faults)));
    }
    CreateVm create;
    JsonReader top{body.get_object(), "", faults};
    top.require("name");
    create.name = fields::vm_name(top, "name").value_or("");
    create.owner = fields::owner(top).value_or("");
    create.labels = fields::labels(top);
    if (const auto wait = top.one_of("wait_for", {"running", "address", "guest_ready"}))
        create.wait_for = wait_for_named(*wait);
    top.require("spec");
    if (const auto* spec = top.object("spec")) {
        JsonReader reader{*spec, top.at("spec"), faults};
        fields::create_spec(reader, defaults, create);
        reader.finish();
    }
    top.finish();
    if (create.wait_for == WaitFor::address && !create.spec.power_on)
        top.fault("wait_for", "a VM that stays off gets no address");
    if (create.wait_for == WaitFor::guest_ready && !create.spec.power_on)
        top.fault("wait_for", "a VM that stays off has no guest to be ready");
    if (!faults.empty()) return base::fail(validation_error(std::move(faults)));
    return create;
}

base::Result<VmPatch> read_patch(const json::value& body, const Vm& current, const ForwardRules& rules) {
    std::vector<base::Fault> faults;
    if (!body.is_object()) {
        faults.push_back({"", "expected an object (a JSON merge patch), got " + describe(body)});
        return base::fail(validation_error(std::move(faults)));
    }
    VmPatch patch;
    JsonReader top{body.get_object(), "", faults};
    if (top.is_null("owner"))
        patch.owner = "";
    else
        patch.owner = fields::owner(top);
    fields::label_changes(top, current.labels, patch);
    if (const auto* spec = top.object("spec")) {
        JsonReader reader{*spec, top.at("spec"), faults};
        fields::patch_spec(reader, current.spec, rules, patch);
        reader.finish();
    }
    for (const auto* fixed : {"id", "name", "managed", "generation", "created_at", "status"})
        if (top.has(fixed)) {
            (void)top.is_null(fixed);
            top.fault(fixed, "can't be changed; owner, labels and parts of spec can");
        }
    top.finish();
    if (!faults.empty()) return base::fail(validation_error(std::move(faults)));
    return patch;
}

void apply_forwards(const VmPatch& patch, std::map<std::string, Forward>& forwards) {
    if (patch.clear_forwards) forwards.clear();
    for (const auto& [name, forward] : patch.forwards) {
        if (forward)
            forwards[name] = *forward;
        else
            forwards.erase(name);
    }
}

std::string describe(const Forward& forward) {
    return fmt::format("{}:{}/{} to the guest's port {}", forward.host_address, forward.host_port,
                       name_of(forward.protocol), forward.guest_port);
}

std::string to_document(const Vm& vm) {
    const json::object doc{
        {"version", 1},
        {"id", vm.id},
        {"name", vm.name},
        {"owner", vm.owner},
        {"labels", labels_json(vm.labels)},
        {"generation", vm.generation},
        {"created", base::to_unix_ms(vm.created_at)},
        {"phase", name_of(vm.phase)},
        {"spec", spec_json(vm.spec)},
        {"plan", json::object{{"installation", vm.plan.installation},
                              {"image_digest", vm.plan.image_digest},
                              {"image_format", vm.plan.image_format},
                              {"root_disk", vm.plan.root_disk},
                              {"root_gib", vm.plan.root_gib},
                              {"disks", strings_json(vm.plan.disks)},
                              {"seed", vm.plan.seed},
                              {"console_log", vm.plan.console_log},
                              {"console_socket", vm.plan.console_socket},
                              {"macs", strings_json(vm.plan.macs)},
                              {"adopted", vm.plan.adopted}}},
    };
    return json::serialize(doc);
}

base::Result<Vm> vm_from_document(std::string_view document) {
    const auto parsed = parse_json(document);
    if (!parsed || !parsed->is_object()) return base::fail(damaged("not a JSON object"));
    std::vector<base::Fault> faults;
    JsonReader top{parsed->get_object(), "", faults};
    const auto text = [](JsonReader& r, std::string_view key) { return r.string(key, 1 << 20).value_or(""); };
    Vm vm;
    vm.id = text(top, "id");
    vm.name = text(top, "name");
    vm.owner = text(top, "owner");
    vm.labels = strings_from(top.object("labels"));
    vm.generation = top.integer("generation", 0, UINT64_MAX).value_or(1);
    vm.created_at = base::from_unix_ms(static_cast<std::int64_t>(top.integer("created", 0, INT64_MAX).value_or(0)));
    const auto phase = text(top, "phase");
    for (const auto candidate : {Phase::provisioning, Phase::ready, Phase::deleting, Phase::error})
        if (phase == name_of(candidate)) vm.phase = candidate;
    if (const auto* spec = top.object("spec")) {
        JsonReader reader{*spec, "/spec", faults};
        fields::stored_spec(reader, vm.spec);
    } else {
        return base::fail(damaged("no spec"));
    }
    if (const auto* plan = top.object("plan")) {
        JsonReader reader{*plan, "/plan", faults};
        vm.plan = {.installation = text(reader, "installation"),
                   .image_digest = text(reader, "image_digest"),
                   .image_format = text(reader, "image_format"),
                   .root_disk = text(reader, "root_disk"),
                   .root_gib = reader.integer("root_gib", 0, UINT64_MAX).value_or(0),
                   .disks = strings_from(reader.object("disks")),
                   .seed = text(reader, "seed"),
                   .console_log = text(reader, "console_log"),
                   .console_socket = text(reader, "console_socket"),
                   .macs = strings_from(reader.object("macs")),
                   .adopted = reader.boolean("adopted").value_or(false)};
    }
    if (vm.id.empty() || vm.name.empty()) return base::fail(damaged("no id or name"));
    if (!faults.empty()) return base::fail(damaged(faults.front().pointer + " " + faults.front().detail));
    return vm;
}

json::object to_resource(const Vm& vm, std::string_view operation, base::Wall now) {
    return {{"id", vm.id},
            {"name", vm.name},
            {"owner", vm.owner},
            {"managed", vm.managed},
            {"labels", labels_json(vm.labels)},
            {"generation", vm.generation},
            {"created_at", vm.managed ? json::value(base::rfc3339(vm.created_at)) : json::value(nullptr)},
            {"spec", spec_json(vm.spec)},
            {"status", status_json(vm, operation, now)}};
}

std::string etag_of(const Vm& vm) { return fmt::format("\"g{}-r{}\"", vm.generation, vm.revision); }

Vm vm_from_domain(const virt::DomainInfo& domain) {
    Vm vm;
    vm.id = domain.uuid;
    vm.name = domain.name;
    vm.managed = false;
    vm.phase = Phase::ready;
    vm.spec.vcpus = domain.vcpus;
    vm.spec.memory_mib = domain.memory_mib;
    vm.spec.power_on = domain.power == virt::Power::running || domain.power == virt::Power::paused;
    vm.spec.autostart = domain.autostart ? Autostart::always : Autostart::never;
    vm.spec.firmware = domain.firmware;
    for (const auto& disk : domain.disks)
        if (!disk.cdrom) vm.spec.disks.emplace(disk.target, ExtraDisk{});
    for (std::size_t i = 0; i < domain.nics.size(); ++i)
        vm.spec.nics.emplace(fmt::format("eth{}", i), Nic{domain.nics[i].network});
    return vm;
}

bool is_vm_name(std::string_view name) noexcept {
    const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
    if (name.empty() || name.size() > 63 || !plain(name.front()) || !plain(name.back())) return false;
    for (const char c : name)
        if (!plain(c) && c != '-') return false;
    return true;
}

}  // namespace ghost::agent
