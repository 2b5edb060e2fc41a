// Which VMs are wanted: as the agent is asked for them, and as an event's VM is judged here.
#pragma once

#include <boost/json/object.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ghost::cli {

struct VmFilter {
    std::vector<std::pair<std::string, std::string>> labels = {};
    std::string power = {};  // these: empty for any
    std::string owner = {};
    std::string name = {};
    std::optional<bool> managed = {};

    // Of the list: "/v1/vms?power=off".
    [[nodiscard]] std::string target() const;
    // What the agent says of the same resource.
    [[nodiscard]] bool accepts(const boost::json::object& vm) const;
};

}  // namespace ghost::cli
