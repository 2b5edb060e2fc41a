#include "virt/host_probe.hpp"

#include "virt/connection.hpp"
#include "virt/xml_text.hpp"

#include <fmt/format.h>

#include <sys/utsname.h>

#include <algorithm>
#include <vector>

namespace ghost::virt {
namespace {

using base::Result;

// libvirt's versions are major * 1000000 + minor * 1000 + release.
std::string version_text(unsigned long version) {
    return fmt::format("{}.{}.{}", version / 1'000'000, version / 1'000 % 1'000, version % 1'000);
}

std::string machine_for(const std::string& type, const std::string& architecture) {
    if (type != "kvm" && type != "qemu") return {};
    if (architecture == "x86_64") return "q35";
    if (architecture == "aarch64") return "virt";
    return {};
}

bool offers(const GuestSupport& support, const char* type) {
    return std::ranges::find(support.types, type) != support.types.end();
}

std::string type_for(const GuestSupport& support, bool kvm_usable) {
    if (offers(support, "kvm") && kvm_usable) return "kvm";
    if (offers(support, "qemu")) return "qemu";
    return support.types.empty() ? std::string{} : support.types.front();
}

// Empty: guests are to use KVM.
std::string reason_against_kvm(const GuestSupport& support, VirtType wanted, const std::string& device) {
    if (wanted == VirtType::qemu) return "the configuration says so";
    if (auto fault = kvm_fault(device, support.qemu_user); !fault.empty()) return fault;
    return offers(support, "kvm") ? "" : "libvirt offers no KVM guests of this architecture";
}

// The test driver plays an old PC whatever runs it; for it the architecture is a name only.
std::string running_architecture() {
    utsname name{};
    return ::uname(&name) == 0 ? name.machine : "x86_64";
}

// The kernel's own total. What virNodeGetInfo tells instead is what is plugged in as the firmware's tables have it,
// which in a guest with hot-plugged memory is far off; it is left for drivers that have no statistics.
std::uint64_t memory_mib_of(virConnectPtr connection, const virNodeInfo& node) {
    int count = 0;
    std::vector<virNodeMemoryStats> stats;
    if (virNodeGetMemoryStats(connection, VIR_NODE_MEMORY_STATS_ALL_CELLS, nullptr, &count, 0) == 0 && count > 0) {
        stats.resize(static_cast<std::size_t>(count));
        if (virNodeGetMemoryStats(connection, VIR_NODE_MEMORY_STATS_ALL_CELLS, stats.data(), &count, 0) == 0)
            for (const auto& stat : stats)
                if (std::string_view{stat.field} == VIR_NODE_MEMORY_STATS_TOTAL) return stat.value >> 10U;
    }
    return node.memory >> 10U;
}

std::string cpu_mode_for(virConnectPtr connection, const Machine& machine) {
    if (machine.machine.empty()) return {};
    const CharPtr xml{virConnectGetDomainCapabilities(connection, nullptr, machine.architecture.c_str(),
                                                      machine.machine.c_str(), machine.type.c_str(), 0)};
    return xml ? best_cpu_mode(xml.get()) : std::string{};
}

}  // namespace

Result<GuestSupport> guest_support(std::string_view capabilities_xml) {
    pugi::xml_document document;
    if (auto loaded = load(document, capabilities_xml, "capabilities"); !loaded)
        return std::unexpected{std::move(loaded.error())};
    const auto root = document.document_element();
    GuestSupport support;
    const auto host = root.child("host");
    support.architecture = host.child("cpu").child("arch").text().get();
    for (const auto model : host.children("secmodel"))
        if (std::string_view{model.child("model").text().get()} == "dac")
            support.qemu_user = qemu_user_from(model.find_child_by_attribute("baselabel", "type", "kvm").text().get());
    for (const auto guest : root.children("guest")) {
        const auto arch = guest.child("arch");
        if (support.architecture != arch.attribute("name").value()) continue;
        if (std::string_view{guest.child("os_type").text().get()} != "hvm") continue;
        for (const auto type : arch.children("domain")) support.types.emplace_back(type.attribute("type").value());
    }
    return support;
}

std::string best_cpu_mode(std::string_view domain_capabilities_xml) {
    pugi::xml_document document;
    if (!load(document, domain_capabilities_xml, "domainCapabilities")) return {};
    const auto cpu = document.document_element().child("cpu");
    for (const auto* mode : {"host-passthrough", "maximum"}) {
        const auto node = cpu.find_child_by_attribute("mode", "name", mode);
        if (std::string_view{node.attribute("supported").value()} == "yes") return mode;
    }
    return {};
}

Result<HostProbe> probe_host(virConnectPtr connection, VirtType wanted, const std::string& kvm_device) {
    const CharPtr uri{virConnectGetURI(connection)};
    if (!uri) return base::fail(last_error("cannot read the connection's URI"));
    const CharPtr capabilities{virConnectGetCapabilities(connection)};
    if (!capabilities) return base::fail(last_error("cannot read the host's capabilities"));
    auto support = guest_support(capabilities.get());
    if (!support) return std::unexpected{std::move(support.error())};

    HostProbe probe;
    auto no_kvm = reason_against_kvm(*support, wanted, kvm_device);
    probe.machine.type = type_for(*support, no_kvm.empty());
    if (probe.machine.type.empty())
        return base::fail(base::Errc::hypervisor_error,
                          "the hypervisor runs no guests of its host's own architecture, " + support->architecture);
    const bool emulates_nothing = probe.machine.type == "test";
    probe.machine.architecture = emulates_nothing ? running_architecture() : support->architecture;
    probe.machine.machine = machine_for(probe.machine.type, probe.machine.architecture);
    probe.machine.cpu_mode = cpu_mode_for(connection, probe.machine);
    if (probe.machine.type == "kvm" && probe.machine.cpu_mode.empty()) {
        probe.machine.type = "qemu";
        no_kvm = "KVM is listed, yet has no CPU that guests could use";
        probe.machine.cpu_mode = cpu_mode_for(connection, probe.machine);
    }

    if (wanted == VirtType::kvm && probe.machine.type != "kvm")
        return base::fail(base::Errc::hypervisor_error, "guests are to run by KVM only, but " + no_kvm);

    virNodeInfo node{};
    if (virNodeGetInfo(connection, &node) < 0) return base::fail(last_error("cannot read the host's figures"));
    unsigned long library = 0;
    unsigned long driver = 0;
    if (virConnectGetLibVersion(connection, &library) < 0)
        return base::fail(last_error("cannot read libvirt's version"));
    // Fails while there is no emulator to ask; then it is merely unknown.
    const bool emulator_known = !emulates_nothing && virConnectGetVersion(connection, &driver) == 0 && driver != 0;
    probe.host = {.uri = uri.get(),
                  .kind = probe.machine.type,
                  .no_kvm = probe.machine.type == "qemu" ? std::move(no_kvm) : std::string{},
                  .libvirt_version = version_text(library),
                  .qemu_version = emulator_known ? version_text(driver) : std::string{},
                  .architecture = probe.machine.architecture,
                  .cpus = node.cpus,
                  .memory_mib = memory_mib_of(connection, node)};
    return probe;
}

}  // namespace ghost::virt
