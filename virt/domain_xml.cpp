#include "virt/domain_xml.hpp"

#include "virt/xml_text.hpp"

#include <algorithm>
#include <cassert>
#include <cctype>
#include <limits>

namespace ghost::virt {
namespace {

using base::Errc;
using base::Result;
using pugi::xml_node;

xml_node child(xml_node parent, const char* name) { return parent.append_child(name); }

// "vda" ... "vdz", "vdaa", ...
std::string disk_target(std::size_t index) {
    std::string letters;
    for (auto n = index + 1; n > 0; n = (n - 1) / 26)
        letters.insert(letters.begin(), static_cast<char>('a' + (n - 1) % 26));
    return "vd" + letters;
}

bool is_alias_text(std::string_view text) {
    return !text.empty() &&
           std::ranges::all_of(text, [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_'; });
}

Result<void> check_text(const DomainSpec& spec) {
    const auto check = [](std::string_view what, std::string_view text) -> Result<void> {
        if (is_xml_text(text)) return {};
        return base::fail(Errc::validation_failed, std::string{what} + " has characters that XML can't carry");
    };
    struct Value {
        std::string_view what;
        std::string_view text;
    };
    std::vector<Value> values{{"the uuid", spec.uuid},
                              {"the name", spec.name},
                              {"the seed's path", spec.seed_path},
                              {"the console log's path", spec.console_log},
                              {"the console socket's path", spec.console_socket},
                              {"the record", spec.record}};
    for (const auto& disk : spec.disks) {
        values.push_back({"a disk's name", disk.name});
        values.push_back({"a disk's path", disk.path});
        values.push_back({"a disk's backing path", disk.backing_path});
        values.push_back({"a disk's backing format", disk.backing_format});
    }
    for (const auto& nic : spec.nics) {
        values.push_back({"a network's name", nic.network});
        values.push_back({"a MAC address", nic.mac});
    }
    for (const auto& value : values)
        if (auto ok = check(value.what, value.text); !ok) return ok;
    return {};
}

// The name is `ghost:vm`, its namespace the record's: libvirt keeps it through every edit of others.
void add_record(xml_node domain, const DomainSpec& spec) {
    const auto prefix = std::string{record_prefix};
    auto node = child(child(domain, "metadata"), (prefix + ":vm").c_str());
    with(node, ("xmlns:" + prefix).c_str(), std::string{record_namespace});
    node.text().set(spec.record.c_str());
}

void add_os(xml_node domain, const DomainSpec& spec, const Machine& machine) {
    auto os = child(domain, "os");
    // ARM's virt machine has no BIOS to start from.
    const bool efi = spec.firmware == Firmware::uefi || machine.architecture == "aarch64";
    if (efi && !machine.machine.empty()) {
        with(os, "firmware", "efi");
        // Without these libvirt picks the build with Microsoft's keys, which starts signed kernels only.
        auto firmware = child(os, "firmware");
        with(with(child(firmware, "feature"), "enabled", "no"), "name", "enrolled-keys");
        with(with(child(firmware, "feature"), "enabled", "no"), "name", "secure-boot");
    }
    auto type = append_text(os, "type", "hvm");
    if (!machine.machine.empty()) with(with(type, "arch", machine.architecture), "machine", machine.machine);
}

void add_processor(xml_node domain, const DomainSpec& spec, const Machine& machine) {
    auto features = child(domain, "features");
    child(features, "acpi");
    if (machine.architecture == "aarch64")
        child(features, "gic");  // libvirt picks the version that works
    else
        child(features, "apic");
    if (!machine.cpu_mode.empty()) {
        auto cpu = with(with(child(domain, "cpu"), "mode", machine.cpu_mode), "check", "none");
        auto topology = with(child(cpu, "topology"), "sockets", "1");
        with(with(topology, "cores", std::to_string(spec.vcpus)), "threads", "1");
    }
}

void add_clock(xml_node domain, const Machine& machine) {
    auto clock = with(child(domain, "clock"), "offset", "utc");
    if (machine.machine != "q35") return;
    with(with(child(clock, "timer"), "name", "rtc"), "tickpolicy", "catchup");
    with(with(child(clock, "timer"), "name", "pit"), "tickpolicy", "delay");
    with(with(child(clock, "timer"), "name", "hpet"), "present", "no");
}

// Written out in full, so that libvirt never probes a file for its format: a guest could write a header of its own.
void add_disk(xml_node devices, const DiskSpec& disk, std::size_t index) {
    auto node = with(with(child(devices, "disk"), "type", "file"), "device", "disk");
    auto driver = with(with(with(child(node, "driver"), "name", "qemu"), "type", "qcow2"), "discard", "unmap");
    // A write that fails stops the guest, which would see a broken disk otherwise: QEMU's own default does so for
    // ENOSPC alone, and a quota or a thin pool that is used up fails otherwise. Waiting brings no unreadable sector
    // back, and the guest may know another copy.
    with(with(driver, "error_policy", "stop"), "rerror_policy", "report");
    with(child(node, "source"), "file", disk.path);
    auto backing = child(node, "backingStore");
    if (!disk.backing_path.empty()) {
        with(backing, "type", "file");
        with(child(backing, "format"), "type", disk.backing_format);
        with(child(backing, "source"), "file", disk.backing_path);
        child(backing, "backingStore");  // the chain ends here
    }
    with(with(child(node, "target"), "dev", disk_target(index)), "bus", "virtio");
    if (!disk.name.empty()) append_text(node, "serial", disk.name);
    if (index == 0) with(child(node, "boot"), "order", "1");
}

void add_seed(xml_node devices, const std::string& path) {
    auto node = with(with(child(devices, "disk"), "type", "file"), "device", "cdrom");
    with(with(child(node, "driver"), "name", "qemu"), "type", "raw");
    with(child(node, "source"), "file", path);
    child(node, "backingStore");
    with(with(child(node, "target"), "dev", "sda"), "bus", "scsi");
    child(node, "readonly");
}

void add_nic(xml_node devices, const NicSpec& nic) {
    auto node = with(child(devices, "interface"), "type", "network");
    with(child(node, "mac"), "address", nic.mac);
    with(child(node, "source"), "network", nic.network);
    with(child(node, "model"), "type", "virtio");
    if (is_alias_text(nic.name)) with(child(node, "alias"), "name", "ua-" + nic.name);
}

bool has_display(const DomainSpec& spec, const Machine& machine) { return spec.display && !machine.machine.empty(); }

// Of a display's devices: a PC's screen sits on the root bus itself, and its keyboard isn't PCI.
std::size_t display_ports(const Machine& machine) { return machine.machine == "virt" ? 3 : 1; }

void add_controllers(xml_node devices, const DomainSpec& spec, const Machine& machine) {
    if (machine.machine.empty()) return;
    // One port for each device below (SCSI and serial controllers, generator, balloon), and the spare ones.
    constexpr std::size_t fixed_devices = 4;
    const auto ports = spec.disks.size() + spec.nics.size() + fixed_devices +
                       (has_display(spec, machine) ? display_ports(machine) : 0) + spare_root_ports;
    with(with(with(child(devices, "controller"), "type", "pci"), "index", "0"), "model", "pcie-root");
    for (std::size_t i = 1; i <= ports; ++i)
        with(with(with(child(devices, "controller"), "type", "pci"), "index", std::to_string(i)), "model",
             "pcie-root-port");
    with(with(with(child(devices, "controller"), "type", "scsi"), "index", "0"), "model", "virtio-scsi");
    with(with(with(child(devices, "controller"), "type", "virtio-serial"), "index", "0"), "model", "virtio");
    with(with(with(child(devices, "controller"), "type", "usb"), "index", "0"), "model", "none");
}

void add_console(xml_node devices, const DomainSpec& spec, const Machine& machine) {
    const auto add = [&spec, devices](const char* name) {
        auto node = with(child(devices, name), "type", spec.console_socket.empty() ? "pty" : "unix");
        if (!spec.console_socket.empty())
            with(with(child(node, "source"), "mode", "bind"), "path", spec.console_socket);
        return node;
    };
    auto serial = add("serial");
    if (!spec.console_log.empty()) with(with(child(serial, "log"), "file", spec.console_log), "append", "on");
    auto target = child(serial, "target");
    if (machine.machine == "q35") with(target, "type", "isa-serial");
    if (machine.machine == "virt") with(target, "type", "system-serial");
    with(target, "port", "0");
    with(with(child(add("console"), "target"), "type", "serial"), "port", "0");
}

// Nobody but the host's root reaches it, and no port is opened. The tablet says where the pointer is, where a mouse
// would say how far it moved: it stays where the viewer's is.
void add_display(xml_node devices, const DomainSpec& spec, const Machine& machine) {
    if (!has_display(spec, machine)) return;
    const bool arm = machine.machine == "virt";  // without a VGA, and without a keyboard of its own
    with(child(with(child(devices, "graphics"), "type", "vnc"), "listen"), "type", "socket");
    with(child(child(devices, "video"), "model"), "type", arm ? "virtio" : "vga");
    with(with(child(devices, "input"), "type", "tablet"), "bus", "virtio");
    if (arm) with(with(child(devices, "input"), "type", "keyboard"), "bus", "virtio");
}

// A guest that sleeps holds its memory and hears no request to shut down; whom would that serve here?
void add_sleep_states(xml_node domain, const Machine& machine) {
    if (machine.machine != "q35") return;  // others have none, and libvirt refuses the element
    auto states = child(domain, "pm");
    with(child(states, "suspend-to-mem"), "enabled", "no");
    with(child(states, "suspend-to-disk"), "enabled", "no");
}

void add_devices(xml_node domain, const DomainSpec& spec, const Machine& machine) {
    auto devices = child(domain, "devices");
    for (std::size_t i = 0; i < spec.disks.size(); ++i) add_disk(devices, spec.disks[i], i);
    if (!spec.seed_path.empty()) add_seed(devices, spec.seed_path);
    add_controllers(devices, spec, machine);
    for (const auto& nic : spec.nics) add_nic(devices, nic);
    add_console(devices, spec, machine);
    add_display(devices, spec, machine);
    auto channel = with(child(devices, "channel"), "type", "unix");
    with(with(child(channel, "target"), "type", "virtio"), "name", "org.qemu.guest_agent.0");
    auto balloon = with(child(devices, "memballoon"), "model", "virtio");
    with(child(balloon, "stats"), "period", "10");
    auto rng = with(child(devices, "rng"), "model", "virtio");
    with(append_text(rng, "backend", "/dev/urandom"), "model", "random");
}

// ---- Reading

std::string path_of(xml_node source) {
    for (const auto* name : {"file", "dev", "dir"})
        if (const auto attribute = source.attribute(name)) return attribute.value();
    return {};  // over the network, or an empty drive
}

// The namespace `element`'s prefix stands for, as declared on it or above.
std::string_view namespace_of(xml_node element) {
    const std::string_view name = element.name();
    const auto colon = name.find(':');
    const std::string declaration =
        colon == std::string_view::npos ? "xmlns" : "xmlns:" + std::string{name.substr(0, colon)};
    for (auto at = element; at; at = at.parent())
        if (const auto declared = at.attribute(declaration.c_str())) return declared.value();
    return {};
}

std::uint64_t mib_of(xml_node memory) { return size_of(memory).value_or(0) >> 20U; }

}  // namespace

Result<std::string> domain_xml(const DomainSpec& spec, const Machine& machine) {
    assert(spec.vcpus > 0 && spec.memory_mib > 0);
    if (auto ok = check_text(spec); !ok) return std::unexpected{std::move(ok.error())};
    pugi::xml_document document;
    auto domain = with(child(document.root(), "domain"), "type", machine.type);
    append_text(domain, "name", spec.name);
    append_text(domain, "uuid", spec.uuid);
    add_record(domain, spec);
    with(append_text(domain, "memory", std::to_string(spec.memory_mib)), "unit", "MiB");
    with(append_text(domain, "currentMemory", std::to_string(spec.memory_mib)), "unit", "MiB");
    with(append_text(domain, "vcpu", std::to_string(spec.vcpus)), "placement", "static");
    add_os(domain, spec, machine);
    add_processor(domain, spec, machine);
    add_clock(domain, machine);
    append_text(domain, "on_poweroff", "destroy");
    append_text(domain, "on_reboot", "restart");
    append_text(domain, "on_crash", "destroy");
    add_sleep_states(domain, machine);
    add_devices(domain, spec, machine);
    return to_string(document);
}

Result<std::string> record_element(std::string_view record) {
    if (!is_xml_text(record))
        return base::fail(Errc::validation_failed, "the record has characters that XML can't carry");
    pugi::xml_document document;
    append_text(document.root(), "vm", std::string{record});
    return to_string(document);
}

Result<DomainInfo> parse_domain_xml(std::string_view xml) {
    pugi::xml_document document;
    if (auto loaded = load(document, xml, "domain"); !loaded) return std::unexpected{std::move(loaded.error())};
    const auto domain = document.document_element();
    DomainInfo info;
    info.uuid = domain.child("uuid").text().get();
    info.name = domain.child("name").text().get();
    const auto vcpu = domain.child("vcpu");
    info.vcpus = vcpu.attribute("current").as_uint(vcpu.text().as_uint(1));
    info.memory_mib = mib_of(domain.child("memory"));
    const auto os = domain.child("os");
    if (std::string_view{os.attribute("firmware").value()} == "efi" ||
        std::string_view{os.child("loader").attribute("type").value()} == "pflash")
        info.firmware = Firmware::uefi;
    for (const auto node : domain.child("devices").children("disk")) {
        const std::string_view device = node.attribute("device").as_string("disk");
        if (device == "floppy") continue;
        info.disks.push_back({.target = node.child("target").attribute("dev").value(),
                              .serial = node.child("serial").text().get(),
                              .path = path_of(node.child("source")),
                              .format = node.child("driver").attribute("type").value(),
                              .cdrom = device == "cdrom"});
    }
    for (const auto node : domain.child("devices").children("interface"))
        info.nics.push_back({.mac = node.child("mac").attribute("address").value(),
                             .network = node.child("source").attribute("network").value(),
                             .model = node.child("model").attribute("type").value()});
    for (const auto node : domain.child("metadata").children())
        if (namespace_of(node) == record_namespace) info.record = node.text().get();
    return info;
}

Result<DiskSources> disk_sources_of(std::string_view xml) {
    pugi::xml_document document;
    if (auto loaded = load(document, xml, "domain"); !loaded) return std::unexpected{std::move(loaded.error())};
    DiskSources sources;
    for (const auto& found : document.select_nodes("/domain/devices/disk//source")) {
        const auto source = found.node();
        // A disk's own format is told by its driver, a backing file's and a copy's beside their source.
        const auto holder = source.parent();
        const bool own = std::string_view{holder.name()} == "disk";
        const std::string format = holder.child(own ? "driver" : "format").attribute("type").value();
        if (auto path = path_of(source); !path.empty())
            sources.files.insert({std::move(path), format});
        else if (const auto volume = source.attribute("volume"))
            sources.volumes.insert({source.attribute("pool").value(), volume.value(), format});
    }
    return sources;
}

Result<std::string> resized_domain_xml(std::string_view xml, unsigned vcpus, std::uint64_t memory_mib) {
    assert(vcpus > 0 && memory_mib > 0);
    pugi::xml_document document;
    if (auto loaded = load(document, xml, "domain"); !loaded) return std::unexpected{std::move(loaded.error())};
    auto domain = document.document_element();
    auto cpu = domain.child("cpu");
    if (cpu.child("numa"))
        return base::fail(Errc::state_conflict, "the domain has a NUMA layout, which a resize would break");

    for (const auto* name : {"memory", "currentMemory"}) {
        auto node = domain.child(name);
        if (!node) node = domain.insert_child_after(name, domain.child("memory"));
        node.remove_attribute("unit");
        with(node, "unit", "MiB").text().set(std::to_string(memory_mib).c_str());
    }

    auto vcpu = domain.child("vcpu");
    if (!vcpu) vcpu = domain.insert_child_after("vcpu", domain.child("currentMemory"));
    vcpu.remove_attribute("current");
    vcpu.text().set(vcpus);
    domain.remove_child("vcpus");  // spelt out per vCPU; libvirt makes it anew
    auto tuning = domain.child("cputune");
    for (auto pin = tuning.child("vcpupin"); pin;) {
        const auto next = pin.next_sibling("vcpupin");
        if (pin.attribute("vcpu").as_uint() >= vcpus) tuning.remove_child(pin);
        pin = next;
    }
    if (auto topology = cpu.child("topology")) {
        const auto per_socket = static_cast<std::uint64_t>(topology.attribute("dies").as_uint(1)) *
                                topology.attribute("cores").as_uint(1) * topology.attribute("threads").as_uint(1);
        const bool whole_sockets =
            topology.attribute("sockets").as_uint(1) > 1 && per_socket > 0 && vcpus % per_socket == 0;
        if (whole_sockets) {
            topology.attribute("sockets").set_value(static_cast<unsigned>(vcpus / per_socket));
        } else {
            while (topology.first_attribute()) topology.remove_attribute(topology.first_attribute());
            with(with(with(topology, "sockets", "1"), "cores", std::to_string(vcpus)), "threads", "1");
        }
    }
    return to_string(document);
}

}  // namespace ghost::virt
