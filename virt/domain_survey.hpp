// What libvirt says of domains beside their definitions. Every call is a way
// to the daemon and back, which may be slow: of all domains as much as can be
// is asked at once. Blocking, without a QEMU monitor; errors as in
// domain_reads.hpp.
#pragma once

#include "base/error.hpp"
#include "virt/connection.hpp"
#include "virt/domain_state.hpp"

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace ghost::virt {

struct DomainNow {
    PowerState power;
    bool active = false;
    bool saved = false;  // has a managed save image
    bool persistent = false;
    bool autostart = false;
};
using Survey = std::map<std::string, DomainNow, std::less<>>;  // by UUID

[[nodiscard]] std::string uuid_of(virDomainPtr domain);

// `flags`: which, of virConnectListAllDomainsFlags; 0: all.
[[nodiscard]] base::Result<std::vector<DomainPtr>> list_domains(virConnectPtr connection, unsigned flags = 0);

[[nodiscard]] base::Result<DomainNow> survey_one(virDomainPtr domain);
// `persistent` and `autostart` stay false.
[[nodiscard]] base::Result<Survey> survey_power(virConnectPtr connection);
[[nodiscard]] base::Result<Survey> survey_all(virConnectPtr connection);

}  // namespace ghost::virt
