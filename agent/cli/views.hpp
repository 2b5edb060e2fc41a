// What people see of each resource: tables for lists, pages for one. JSON in,
// text out; unknown or missing members show as "-" or not at all.
#pragma once

#include "base/clock.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <string>
#include <string_view>

namespace ghost::cli {

[[nodiscard]] std::string vm_table(const boost::json::array& vms, base::Wall now);
[[nodiscard]] std::string vm_page(const boost::json::object& vm, base::Wall now);
// "running", "provisioning"
[[nodiscard]] std::string vm_phase(const boost::json::object& vm);
// "running", "provisioning", "off (unmanaged)": phase and power in one word or two.
[[nodiscard]] std::string vm_state(const boost::json::object& vm);
// The same, and where it can be reached: "running at 10.0.0.2".
[[nodiscard]] std::string vm_state_and_addresses(const boost::json::object& vm);

[[nodiscard]] std::string image_table(const boost::json::array& images, base::Wall now);
[[nodiscard]] std::string catalogue_table(const boost::json::array& images);
[[nodiscard]] std::string image_page(const boost::json::object& image, base::Wall now);

[[nodiscard]] std::string operation_table(const boost::json::array& operations, base::Wall now);
[[nodiscard]] std::string operation_page(const boost::json::object& operation, base::Wall now);

[[nodiscard]] std::string orphan_table(const boost::json::array& orphans);

[[nodiscard]] std::string resources_table(const boost::json::object& resources);

[[nodiscard]] std::string agent_page(const boost::json::object& agent, base::Wall now);
// `agent` is GET /v1, `health` GET /health, `resources` GET /v1/resources.
[[nodiscard]] std::string status_page(const boost::json::object& agent, const boost::json::object& health,
                                      const boost::json::object& resources, const boost::json::array& vms,
                                      base::Wall now);
[[nodiscard]] std::string version_page(const boost::json::object& agent);

// What a dry run answered: "would: ..." lines, then what it needs and what is free.
[[nodiscard]] std::string preview_page(const boost::json::object& preview);
// One line about a change that succeeded: "VM web started: running at 192.168.122.10".
[[nodiscard]] std::string done_line(std::string_view subject, std::string_view done,
                                    const boost::json::object& resource);

}  // namespace ghost::cli
