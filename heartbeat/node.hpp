// What the heartbeat reads of the agent. Memory only: nothing here waits for a hypervisor.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

namespace ghost::heartbeat {

class Node {
public:
    virtual ~Node() = default;
    // {"name", "version"}, as Core is told at enrolment and with each session.
    [[nodiscard]] virtual boost::json::object about() const = 0;
    [[nodiscard]] virtual boost::json::array features() const = 0;
    // {"tailscale_ip"?, "local": []}
    [[nodiscard]] virtual boost::json::object addresses() const = 0;
    // As GET /v1/resources answers.
    [[nodiscard]] virtual boost::json::object resources() const = 0;
    // [{"type", "status", "reason", "message"?, "since"}] of what isn't as it should be.
    [[nodiscard]] virtual boost::json::array conditions() const = 0;
};

}  // namespace ghost::heartbeat
