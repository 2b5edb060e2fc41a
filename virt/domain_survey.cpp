#include "virt/domain_survey.hpp"

#include "virt/domain_stats.hpp"

#include <array>
#include <memory>
#include <set>
#include <span>
#include <utility>

namespace ghost::virt {
namespace {

using base::Result;

DomainNow now_of(virDomainPtr domain, int state, int reason, const std::function<bool()>& has_saved) {
    DomainNow now;
    // A crashed one may have been kept.
    now.active = state == VIR_DOMAIN_CRASHED ? virDomainIsActive(domain) == 1
                                             : state != VIR_DOMAIN_SHUTOFF && state != VIR_DOMAIN_NOSTATE;
    now.saved = !now.active && has_saved();
    now.power = power_of(state, reason, state == VIR_DOMAIN_SHUTOFF && now.saved);
    return now;
}

Result<DomainNow> power_now(virDomainPtr domain) {
    int state = 0;
    int reason = 0;
    if (virDomainGetState(domain, &state, &reason, 0) < 0) return base::fail(last_error());
    return now_of(domain, state, reason, [domain] { return virDomainHasManagedSaveImage(domain, 0) == 1; });
}

// Drivers without bulk statistics: one by one.
Result<Survey> one_by_one(virConnectPtr connection) {
    const auto domains = list_domains(connection);
    if (!domains) return base::fail(domains.error());
    Survey survey;
    for (const auto& domain : *domains)
        if (auto now = power_now(domain.get())) survey.emplace(uuid_of(domain.get()), std::move(*now));
    return survey;
}

Result<std::set<std::string>> uuids_of(virConnectPtr connection, unsigned flags) {
    const auto domains = list_domains(connection, flags);
    if (!domains) return base::fail(domains.error());
    std::set<std::string> uuids;
    for (const auto& domain : *domains) uuids.insert(uuid_of(domain.get()));
    return uuids;
}

}  // namespace

std::string uuid_of(virDomainPtr domain) {
    std::array<char, VIR_UUID_STRING_BUFLEN> text{};
    virDomainGetUUIDString(domain, text.data());
    return text.data();
}

Result<std::vector<DomainPtr>> list_domains(virConnectPtr connection, unsigned flags) {
    virDomainPtr* list = nullptr;
    const int count = virConnectListAllDomains(connection, &list, flags);
    if (count < 0) return base::fail(last_error("cannot list domains"));
    const std::unique_ptr<virDomainPtr, FreeMalloced> owner{list};
    std::vector<DomainPtr> held;
    for (auto* const domain : std::span{list, static_cast<std::size_t>(count)}) held.emplace_back(domain);
    return held;
}

Result<DomainNow> survey_one(virDomainPtr domain) {
    auto now = power_now(domain);
    if (!now) return now;
    now->persistent = virDomainIsPersistent(domain) == 1;
    int autostart = 0;
    now->autostart = now->persistent && virDomainGetAutostart(domain, &autostart) == 0 && autostart != 0;
    return now;
}

Result<Survey> survey_power(virConnectPtr connection) {
    virDomainStatsRecordPtr* list = nullptr;
    const int count = virConnectGetAllDomainStats(connection, VIR_DOMAIN_STATS_STATE, &list, 0);
    if (count < 0) {
        if (virGetLastErrorCode() == VIR_ERR_NO_SUPPORT) return one_by_one(connection);
        return base::fail(last_error("cannot read the domains' states"));
    }
    const StatsList owner{list};
    const auto saved = uuids_of(connection, VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE);
    if (!saved) return base::fail(saved.error());
    Survey survey;
    for (const auto* const record : std::span{list, static_cast<std::size_t>(count)}) {
        auto uuid = uuid_of(record->dom);
        auto now = now_of(record->dom, static_cast<int>(number(*record, "state.state")),
                          static_cast<int>(number(*record, "state.reason")), [&] { return saved->contains(uuid); });
        survey.emplace(std::move(uuid), std::move(now));
    }
    return survey;
}

Result<Survey> survey_all(virConnectPtr connection) {
    auto survey = survey_power(connection);
    if (!survey) return survey;
    const auto persistent = uuids_of(connection, VIR_CONNECT_LIST_DOMAINS_PERSISTENT);
    if (!persistent) return base::fail(persistent.error());
    const auto autostart = uuids_of(connection, VIR_CONNECT_LIST_DOMAINS_AUTOSTART);
    if (!autostart) return base::fail(autostart.error());
    for (auto& [uuid, now] : *survey) {
        now.persistent = persistent->contains(uuid);
        now.autostart = now.persistent && autostart->contains(uuid);
    }
    return survey;
}

}  // namespace ghost::virt
