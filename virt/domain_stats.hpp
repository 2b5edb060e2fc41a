// libvirt's statistics of domains: typed parameters by their names.
#pragma once

#include "virt/connection.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace ghost::virt {

struct StatsFree {
    void operator()(virDomainStatsRecordPtr* records) const noexcept { virDomainStatsRecordListFree(records); }
};
using StatsList = std::unique_ptr<virDomainStatsRecordPtr, StatsFree>;

// Whatever integer it is; 0 when it isn't there, or negative.
[[nodiscard]] std::uint64_t number(const virDomainStatsRecord& record, std::string_view name);
[[nodiscard]] std::string text(const virDomainStatsRecord& record, std::string_view name);

}  // namespace ghost::virt
