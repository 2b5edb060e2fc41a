#include "agent/cli/vm_filter.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/query.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace ghost::cli {
namespace json = boost::json;

std::string VmFilter::target() const {
    std::string target = "/v1/vms";
    for (const auto& [key, value] : labels) add_query(target, "label", fmt::format("{}={}", key, value));
    for (const auto& [key, value] : {std::pair{"power", power}, std::pair{"owner", owner}, std::pair{"name", name}})
        if (!value.empty()) add_query(target, key, value);
    if (managed) add_query(target, "managed", *managed ? "true" : "false");
    return target;
}

bool VmFilter::accepts(const json::object& vm) const {
    const auto& its_labels = part(vm, "labels");
    const auto has = [&its_labels](const auto& label) {
        const auto* value = its_labels.if_contains(label.first);
        return value != nullptr && value->is_string() && value->get_string() == label.second;
    };
    const auto is = [](const std::string& wanted, const std::string& text) { return wanted.empty() || wanted == text; };
    return std::ranges::all_of(labels, has) && is(power, text_at(vm, "status", "power")) &&
           is(owner, text_at(vm, "owner")) && is(name, text_at(vm, "name")) &&
           (!managed || bool_at(vm, "managed") == managed);
}

}  // namespace ghost::cli
