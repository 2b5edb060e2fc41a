#include "virt/domain_stats.hpp"

#include <span>

namespace ghost::virt {
namespace {

std::span<const virTypedParameter> parameters(const virDomainStatsRecord& record) {
    return {record.params, static_cast<std::size_t>(record.nparams)};
}

const virTypedParameter* parameter(const virDomainStatsRecord& record, std::string_view name) {
    for (const auto& candidate : parameters(record))
        if (name == static_cast<const char*>(candidate.field)) return &candidate;
    return nullptr;
}

}  // namespace

std::uint64_t number(const virDomainStatsRecord& record, std::string_view name) {
    const auto* found = parameter(record, name);
    if (found == nullptr) return 0;
    switch (found->type) {
        case VIR_TYPED_PARAM_UINT: return found->value.ui;
        case VIR_TYPED_PARAM_ULLONG: return found->value.ul;
        case VIR_TYPED_PARAM_INT: return found->value.i < 0 ? 0 : static_cast<std::uint64_t>(found->value.i);
        case VIR_TYPED_PARAM_LLONG: return found->value.l < 0 ? 0 : static_cast<std::uint64_t>(found->value.l);
        default: return 0;
    }
}

std::string text(const virDomainStatsRecord& record, std::string_view name) {
    const auto* found = parameter(record, name);
    return found != nullptr && found->type == VIR_TYPED_PARAM_STRING ? found->value.s : std::string{};
}

}  // namespace ghost::virt
