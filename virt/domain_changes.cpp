#include "virt/domain_changes.hpp"

#include "virt/connection.hpp"
#include "virt/domain_reads.hpp"

#include <fmt/format.h>

#include <optional>

namespace ghost::virt {
namespace {

using base::Errc;
using base::Result;

// `call` returns what libvirt does: negative is a failure, told as "cannot <what>: ...".
template <class Call>
Result<void> on_domain(virConnectPtr connection, const std::string& uuid, std::string_view what, Call call) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    if (call(domain->get()) < 0) return base::fail(last_error(fmt::format("cannot {}", what)));
    return {};
}

// The definition as it stands, with what virDomainGetXMLDesc hides (graphics passwords): it is written back.
constexpr unsigned whole_definition = VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE;

// Success: no domain has that name or uuid.
Result<void> check_unused(virConnectPtr connection, const DomainSpec& spec) {
    DomainPtr taken{virDomainLookupByUUIDString(connection, spec.uuid.c_str())};
    if (!taken) {
        if (auto error = last_error(); error.code != Errc::not_found) return base::fail(std::move(error));
        taken.reset(virDomainLookupByName(connection, spec.name.c_str()));
    }
    if (taken)
        return base::fail(Errc::already_exists, fmt::format("a domain named {} exists", virDomainGetName(taken.get())));
    if (auto error = last_error(); error.code != Errc::not_found) return base::fail(std::move(error));
    return {};
}

constexpr unsigned undefine_everything = VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                                         VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | VIR_DOMAIN_UNDEFINE_NVRAM;

int undefine(virDomainPtr domain) {
    const int done = virDomainUndefineFlags(domain, undefine_everything);
    if (done == 0 || virGetLastErrorCode() != VIR_ERR_INVALID_ARG) return done;
    // The test driver knows no NVRAM and no checkpoints, and says so of the flags.
    return virDomainUndefineFlags(domain, VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA);
}

}  // namespace

Result<void> define_domain(virConnectPtr connection, const DomainSpec& spec, const Machine& machine) {
    const auto xml = domain_xml(spec, machine);
    if (!xml) return std::unexpected{xml.error()};
    if (auto unused = check_unused(connection, spec); !unused) return unused;
    const DomainPtr domain{virDomainDefineXMLFlags(connection, xml->c_str(), VIR_DOMAIN_DEFINE_VALIDATE)};
    if (!domain) return base::fail(last_error("cannot define domain " + spec.name));
    if (spec.autostart && virDomainSetAutostart(domain.get(), 1) < 0) {
        auto error = last_error("cannot make the domain start with the host");
        undefine(domain.get());
        return base::fail(std::move(error));
    }
    return {};
}

Result<void> undefine_domain(virConnectPtr connection, const std::string& uuid) {
    const auto domain = find_domain(connection, uuid);
    if (!domain && domain.error().code == Errc::not_found) return {};
    if (!domain) return std::unexpected{domain.error()};
    // Undefined while it runs it would run on, without a definition and soon without disks.
    if (auto off = power_off_domain(domain->get()); !off) return off;
    // A transient domain has no definition to take away.
    if (virDomainIsPersistent(domain->get()) == 0) return {};
    if (undefine(domain->get()) == 0) return {};
    auto error = last_error("cannot undefine the domain");
    return error.code == Errc::not_found ? Result<void>{} : base::fail(std::move(error));
}

Result<void> start_domain(virConnectPtr connection, const std::string& uuid) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    // Not every driver has a code of its own for this.
    if (virDomainIsActive(domain->get()) == 1) return base::fail(Errc::state_conflict, "the domain runs already");
    if (virDomainCreate(domain->get()) < 0) return base::fail(last_error("cannot start the domain"));
    return {};
}

Result<void> shutdown_by_agent(virConnectPtr connection, const std::string& uuid, int agent_seconds) {
    return on_domain(connection, uuid, "ask the guest agent to shut down", [agent_seconds](virDomainPtr d) {
        if (virDomainAgentSetResponseTimeout(d, agent_seconds, 0) < 0) return -1;
        return virDomainShutdownFlags(d, VIR_DOMAIN_SHUTDOWN_GUEST_AGENT);
    });
}

Result<void> shutdown_by_power_button(virConnectPtr connection, const std::string& uuid) {
    return on_domain(connection, uuid, "press the domain's power button", [](virDomainPtr d) {
        const int done = virDomainShutdownFlags(d, VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN);
        // Drivers without buttons take no flag.
        return done < 0 && virGetLastErrorCode() == VIR_ERR_INVALID_ARG ? virDomainShutdown(d) : done;
    });
}

Result<void> power_off_domain(virDomainPtr domain) {
    const int active = virDomainIsActive(domain);  // negative: libvirt didn't say
    if (active == 0 || (active == 1 && virDomainDestroyFlags(domain, VIR_DOMAIN_DESTROY_DEFAULT) == 0)) return {};
    auto error = last_error("cannot power the domain off");
    if (error.code == Errc::not_found || virDomainIsActive(domain) == 0) return {};
    return base::fail(std::move(error));
}

Result<void> power_off_domain(virConnectPtr connection, const std::string& uuid) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    return power_off_domain(domain->get());
}

Result<void> reset_domain(virConnectPtr connection, const std::string& uuid) {
    return on_domain(connection, uuid, "reset the domain", [](virDomainPtr d) { return virDomainReset(d, 0); });
}

Result<void> pause_domain(virConnectPtr connection, const std::string& uuid) {
    return on_domain(connection, uuid, "pause the domain", [](virDomainPtr d) { return virDomainSuspend(d); });
}

Result<void> resume_domain(virConnectPtr connection, const std::string& uuid) {
    return on_domain(connection, uuid, "resume the domain", [](virDomainPtr d) { return virDomainResume(d); });
}

Result<void> save_domain(virConnectPtr connection, const std::string& uuid) {
    return on_domain(connection, uuid, "save the domain", [](virDomainPtr d) { return virDomainManagedSave(d, 0); });
}

Result<void> abort_domain_job(virConnectPtr connection, const std::string& uuid) {
    return on_domain(connection, uuid, "end the domain's job", [](virDomainPtr d) {
        const int done = virDomainAbortJob(d);
        // Off, or no job: there is nothing to end.
        return done < 0 && virGetLastErrorCode() == VIR_ERR_OPERATION_INVALID ? 0 : done;
    });
}

Result<void> resize_domain(virConnectPtr connection, const std::string& uuid, unsigned vcpus,
                           std::uint64_t memory_mib) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    if (virDomainIsPersistent(domain->get()) != 1)
        return base::fail(Errc::state_conflict, "the domain has no definition of its own to resize");
    const CharPtr xml{virDomainGetXMLDesc(domain->get(), whole_definition)};
    if (!xml) return base::fail(last_error("cannot read the domain's definition"));
    const auto edited = resized_domain_xml(xml.get(), vcpus, memory_mib);
    if (!edited) return std::unexpected{edited.error()};
    // Not validated against the schema: what others defined may use more than it knows.
    const DomainPtr redefined{virDomainDefineXMLFlags(connection, edited->c_str(), 0)};
    if (!redefined) return base::fail(last_error("cannot resize the domain"));
    return {};
}

Result<void> set_domain_autostart(virConnectPtr connection, const std::string& uuid, bool on) {
    return on_domain(connection, uuid, "set the domain's autostart",
                     [on](virDomainPtr d) { return virDomainSetAutostart(d, on ? 1 : 0); });
}

Result<void> set_domain_record(virConnectPtr connection, const std::string& uuid, const std::string& record) {
    const auto element = record_element(record);
    if (!element) return std::unexpected{element.error()};
    return on_domain(connection, uuid, "write the domain's record", [&element](virDomainPtr d) {
        unsigned where = virDomainIsPersistent(d) == 1 ? VIR_DOMAIN_AFFECT_CONFIG : 0U;
        if (virDomainIsActive(d) == 1) where |= VIR_DOMAIN_AFFECT_LIVE;
        return virDomainSetMetadata(d, VIR_DOMAIN_METADATA_ELEMENT, element->c_str(),
                                    std::string{record_prefix}.c_str(), std::string{record_namespace}.c_str(), where);
    });
}

Result<void> rename_domain(virConnectPtr connection, const std::string& uuid, const std::string& name) {
    return on_domain(connection, uuid, "rename the domain", [&name](virDomainPtr domain) {
        return virDomainGetName(domain) == name ? 0 : virDomainRename(domain, name.c_str(), 0);
    });
}

}  // namespace ghost::virt
