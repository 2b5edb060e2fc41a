// What an agent may send to Core: heartbeat/core-api.yaml's request bodies, read strictly.
#pragma once

#include "base/clock.hpp"

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::fakes {

// "/delta/vms/upsert/0/power: must be one of ...": a JSON Pointer and what is wrong there.
using ContractFaults = std::vector<std::string>;

struct CoreEnrolment {
    std::string token;
    std::string install_id;
    std::string name;
    std::string csr;
    std::string version;
    boost::json::object resources;
    boost::json::object addresses;
};

struct CoreSessionBegin {
    std::uint64_t epoch = 0;
    std::string boot_id;
    std::string name;
    std::string version;
    std::vector<std::string> features;
    boost::json::object resources;
    boost::json::object addresses;
};

struct CoreAck {
    std::string cmd_id;
    std::string state;
    std::string operation;                            // empty: none
    std::optional<boost::json::object> problem = {};  // of failed and rejected ones
};

struct CoreDelta {
    bool full = false;
    std::map<std::string, boost::json::object> upsert;  // by id
    std::vector<std::string> remove;
    std::optional<boost::json::object> resources;
};

struct CoreBeat {
    std::string session_id;
    std::uint64_t epoch = 0;
    std::uint64_t seq = 0;
    std::string reason;
    base::Wall wall;
    std::uint64_t base_rev = 0;
    std::uint64_t state_rev = 0;
    std::optional<CoreDelta> delta;
    std::vector<boost::json::object> conditions;
    std::vector<CoreAck> acks;
};

struct CoreFact {
    std::uint64_t rev = 0;
    std::string at;
    std::string kind;               // vm.created, vm.deleted, command.result
    std::string vm_id;              // of the first two
    std::optional<CoreAck> result;  // of command.result
    boost::json::object told;       // all of it, as it came
};

struct CoreFactBatch {
    std::string session_id;
    std::uint64_t epoch = 0;
    std::vector<CoreFact> items;
};

// Each adds what it finds wrong to `faults`; what it returns is good only when nothing was added. `bytes` is the size
// of the beat as it was sent.
[[nodiscard]] CoreEnrolment read_enrolment(const boost::json::value& body, ContractFaults& faults);
[[nodiscard]] std::string read_renewal(const boost::json::value& body, ContractFaults& faults);  // the CSR
[[nodiscard]] CoreSessionBegin read_session_begin(const boost::json::value& body, ContractFaults& faults);
[[nodiscard]] CoreBeat read_beat(const boost::json::value& body, std::size_t bytes, ContractFaults& faults);
[[nodiscard]] CoreFactBatch read_facts(const boost::json::value& body, ContractFaults& faults);

[[nodiscard]] bool is_core_id(std::string_view text) noexcept;  // [A-Za-z0-9._-]{1,64}
// "2026-01-02T03:04:05[.678]Z"
[[nodiscard]] std::optional<base::Wall> read_timestamp(std::string_view text);

}  // namespace ghost::fakes
