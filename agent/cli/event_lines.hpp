// An event of the agent's as a line for people, and whether it is one of those that were asked for.
#pragma once

#include <boost/json/object.hpp>

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::cli {

inline constexpr std::array<std::string_view, 8> event_types{"vm.created",    "vm.updated",      "vm.power",
                                                             "vm.deleted",    "vm.guest_access", "operation.updated",
                                                             "image.updated", "agent.updated"};

struct EventFilter {
    std::vector<std::string> types = {};  // empty: all
    std::string subject = {};             // a name, an id or a path; operations also go by what they work on

    [[nodiscard]] bool accepts(const boost::json::object& event) const;
};

// "vm web is running", "operation vm.create of web: start (stalled)". Holds what the agent sent: to be made printable.
[[nodiscard]] std::string summary_of(const boost::json::object& event);
// Time, type and summary; ends with a newline.
[[nodiscard]] std::string event_line(const boost::json::object& event);

}  // namespace ghost::cli
