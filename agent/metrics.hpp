// The figures Prometheus reads.
#pragma once

#include "agent/access/stream_service.hpp"
#include "agent/host/host_load.hpp"
#include "agent/operations/operation.hpp"
#include "net/http.hpp"
#include "virt/hypervisor.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ghost::agent {

class Metrics {
public:
    explicit Metrics(const std::string& version);
    ~Metrics();
    Metrics(const Metrics&) = delete;
    Metrics& operator=(const Metrics&) = delete;

    void vm_created();
    void vm_deleted();
    void operation_ended(const Operation& operation);
    void request(net::Method method, std::string_view route, unsigned status, std::chrono::duration<double> took);
    // One that no handler saw: counted without a latency, as route "unmatched".
    void refused(net::Method method, unsigned status);
    void loop_lag(std::chrono::duration<double> lag);

    // Gauges that are set when somebody reads.
    struct Now {
        std::size_t vms_running = 0;
        std::size_t vms_managed = 0;
        std::size_t operations_unfinished = 0;
        std::size_t connections = 0;
        bool hypervisor_connected = false;
        std::uint64_t log_records_dropped = 0;
        std::size_t orphans = 0;
        std::uint64_t last_event = 0;
        bool state_sound = true;  // the state database lost nothing, takes writes and has its reserve
        std::vector<StreamService::Figures> streams;  // by kind
        HostLoad host;
        std::vector<virt::LaneStats> lanes;
        // Of the link to Ghost Core; nullopt: there is none.
        struct Core {
            bool beat_succeeded = false;     // the last one
            std::optional<double> beat_age;  // seconds since the last that did; nullopt: none did yet
            double round_trip = 0;           // of it, seconds
            std::uint64_t beats = 0;         // that did, since the start
            std::uint64_t beats_failed = 0;  // likewise
            std::size_t facts_waiting = 0;
            std::size_t commands_unfinished = 0;
        };
        std::optional<Core> core;
    };
    // The text exposition format.
    [[nodiscard]] std::string expose(const Now& now);

private:
    struct Families;
    std::unique_ptr<Families> families_;
};

}  // namespace ghost::agent
