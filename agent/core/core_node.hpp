// This node as Ghost Core sees it: from the index, capacity and health, in memory.
#pragma once

#include "agent/host/health.hpp"
#include "agent/vm/vm.hpp"
#include "heartbeat/node.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <functional>
#include <string>
#include <vector>

namespace ghost::agent {

class CoreNode final : public heartbeat::Node {
public:
    // Each reads memory, and outlives the node.
    struct Sources {
        std::string name;
        std::string version;
        std::function<boost::json::array()> features;
        std::function<boost::json::object()> resources;
        Health& health;
        std::function<std::vector<std::string>()> local_addresses;
        std::function<std::string()> tailscale_ip;  // empty: none
        // Why no new VMs are taken, since when; null: they are.
        std::function<boost::json::value()> drain;
    };
    explicit CoreNode(Sources sources) : s_(std::move(sources)) {}

    [[nodiscard]] boost::json::object about() const override;
    [[nodiscard]] boost::json::array features() const override { return s_.features(); }
    [[nodiscard]] boost::json::object addresses() const override;
    [[nodiscard]] boost::json::object resources() const override { return s_.resources(); }
    [[nodiscard]] boost::json::array conditions() const override;

private:
    Sources s_;
};

// A VM as a delta tells it.
[[nodiscard]] boost::json::object vm_for_core(const Vm& vm);
// As a fact tells it: {"id", "name", "owner"}.
[[nodiscard]] boost::json::object vm_in_fact(const Vm& vm);

}  // namespace ghost::agent
