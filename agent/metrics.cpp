#include "agent/metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cstdint>
#include <optional>

namespace ghost::agent {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;

const prometheus::Histogram::BucketBoundaries request_buckets{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                              0.1,    0.25,  0.5,    1,     2.5,  10,    60};
const prometheus::Histogram::BucketBoundaries lag_buckets{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                                          0.01,   0.025,   0.05,   0.1,   0.5,    1};

// A gauge without a value is none: the last figure isn't shown for ever.
void set(prometheus::Family<prometheus::Gauge>& family, const prometheus::Labels& labels, std::optional<double> value) {
    auto& gauge = family.Add(labels);
    if (value)
        gauge.Set(*value);
    else
        family.Remove(&gauge);
}

// Of what is counted elsewhere, and only grows.
void count_up_to(prometheus::Counter& counter, std::uint64_t total) {
    counter.Increment(std::max(0.0, static_cast<double>(total) - counter.Value()));
}

}  // namespace

struct Metrics::Families {
    prometheus::Registry registry;
    prometheus::Family<prometheus::Gauge>& info =
        BuildGauge().Name("ghost_agent_info").Help("Constant 1, labelled with the version.").Register(registry);
    prometheus::Counter& created =
        BuildCounter().Name("ghost_agent_vms_created_total").Help("VMs created.").Register(registry).Add({});
    prometheus::Counter& deleted =
        BuildCounter().Name("ghost_agent_vms_deleted_total").Help("VMs deleted.").Register(registry).Add({});
    prometheus::Gauge& running = BuildGauge()
                                     .Name("ghost_agent_vms_running")
                                     .Help("VMs that run now, paused ones too.")
                                     .Register(registry)
                                     .Add({});
    prometheus::Gauge& managed =
        BuildGauge().Name("ghost_agent_vms_managed").Help("VMs that this agent manages.").Register(registry).Add({});
    prometheus::Family<prometheus::Counter>& operations = BuildCounter()
                                                              .Name("ghost_agent_operations_total")
                                                              .Help("Operations ended, by kind and outcome.")
                                                              .Register(registry);
    prometheus::Gauge& unfinished =
        BuildGauge().Name("ghost_agent_operations_unfinished").Help("Operations under way.").Register(registry).Add({});
    prometheus::Family<prometheus::Counter>& requests = BuildCounter()
                                                            .Name("ghost_agent_http_requests_total")
                                                            .Help("Requests answered, by method, route and status.")
                                                            .Register(registry);
    prometheus::Family<prometheus::Histogram>& latency = BuildHistogram()
                                                             .Name("ghost_agent_http_request_duration_seconds")
                                                             .Help("Time to answer, by method and route.")
                                                             .Register(registry);
    prometheus::Gauge& connections =
        BuildGauge().Name("ghost_agent_http_connections").Help("Open connections.").Register(registry).Add({});
    prometheus::Histogram& lag = BuildHistogram()
                                     .Name("ghost_agent_loop_lag_seconds")
                                     .Help("How late the event loop ran a timer.")
                                     .Register(registry)
                                     .Add({}, lag_buckets);
    prometheus::Gauge& connected = BuildGauge()
                                       .Name("ghost_agent_hypervisor_connected")
                                       .Help("1 while the hypervisor is connected.")
                                       .Register(registry)
                                       .Add({});
    prometheus::Gauge& orphans =
        BuildGauge()
            .Name("ghost_agent_orphans")
            .Help("Files and domains of ours that nobody owns, when they were last looked for.")
            .Register(registry)
            .Add({});
    prometheus::Gauge& last_event = BuildGauge()
                                        .Name("ghost_agent_last_event_id")
                                        .Help("Id of the last event that was told.")
                                        .Register(registry)
                                        .Add({});
    prometheus::Gauge& state_sound =
        BuildGauge()
            .Name("ghost_agent_state_sound")
            .Help("1 while the state database has lost nothing, takes writes and has its reserve.")
            .Register(registry)
            .Add({});
    prometheus::Gauge& dropped = BuildGauge()
                                     .Name("ghost_agent_log_records_dropped")
                                     .Help("Log records lost since the start because the queue was full.")
                                     .Register(registry)
                                     .Add({});
    prometheus::Family<prometheus::Gauge>& streams =
        BuildGauge().Name("ghost_agent_streams").Help("Open ways into VMs, by kind.").Register(registry);
    prometheus::Family<prometheus::Counter>& stream_bytes =
        BuildCounter()
            .Name("ghost_agent_stream_bytes_total")
            .Help("Bytes carried into VMs and out of them, by kind and direction.")
            .Register(registry);
    // Without a figure while the host doesn't tell it.
    prometheus::Family<prometheus::Gauge>& load1 =
        BuildGauge().Name("ghost_agent_host_load1").Help("The host's load average over a minute.").Register(registry);
    prometheus::Family<prometheus::Gauge>& pressure =
        BuildGauge()
            .Name("ghost_agent_host_pressure")
            .Help("Percent of the last 10 s in which some or all of the host's tasks waited for the resource.")
            .Register(registry);
    prometheus::Family<prometheus::Gauge>& on_battery =
        BuildGauge().Name("ghost_agent_on_battery").Help("1 while the host runs on its battery.").Register(registry);
    prometheus::Family<prometheus::Gauge>& lanes =
        BuildGauge().Name("ghost_agent_lanes").Help("Hypervisor lanes, by class and state.").Register(registry);
    prometheus::Family<prometheus::Gauge>& lane_queue = BuildGauge()
                                                            .Name("ghost_agent_lane_queue_length")
                                                            .Help("Calls that wait for a lane, by class.")
                                                            .Register(registry);
    prometheus::Family<prometheus::Gauge>& breaker = BuildGauge()
                                                         .Name("ghost_agent_lane_breaker_open")
                                                         .Help("1 while every lane of the class is overdue.")
                                                         .Register(registry);
    // Empty while there is no Core.
    prometheus::Family<prometheus::Gauge>& core_beat = BuildGauge()
                                                           .Name("ghost_agent_heartbeat_success")
                                                           .Help("1 when Ghost Core answered the last heartbeat well.")
                                                           .Register(registry);
    prometheus::Family<prometheus::Gauge>& core_age =
        BuildGauge()
            .Name("ghost_agent_heartbeat_age_seconds")
            .Help("Time since the last heartbeat that Ghost Core answered well; absent before the first.")
            .Register(registry);
    prometheus::Family<prometheus::Gauge>& core_round_trip =
        BuildGauge()
            .Name("ghost_agent_heartbeat_round_trip_seconds")
            .Help("From sending the last heartbeat that was answered well to its answer.")
            .Register(registry);
    prometheus::Family<prometheus::Counter>& core_beats =
        BuildCounter().Name("ghost_agent_heartbeats_total").Help("Heartbeats, by outcome.").Register(registry);
    prometheus::Family<prometheus::Gauge>& core_facts = BuildGauge()
                                                            .Name("ghost_agent_core_facts_waiting")
                                                            .Help("Facts that Ghost Core doesn't have yet.")
                                                            .Register(registry);
    prometheus::Family<prometheus::Gauge>& core_commands = BuildGauge()
                                                               .Name("ghost_agent_core_commands_unfinished")
                                                               .Help("Commands of Ghost Core that are under way.")
                                                               .Register(registry);
};

Metrics::Metrics(const std::string& version) : families_(std::make_unique<Families>()) {
    families_->info.Add({{"version", version}}).Set(1);
}
Metrics::~Metrics() = default;

void Metrics::vm_created() { families_->created.Increment(); }
void Metrics::vm_deleted() { families_->deleted.Increment(); }

void Metrics::operation_ended(const Operation& operation) {
    families_->operations.Add({{"kind", operation.kind}, {"outcome", std::string{name_of(operation.state)}}})
        .Increment();
}

void Metrics::request(net::Method method, std::string_view route, unsigned status, std::chrono::duration<double> took) {
    std::string verb{net::name_of(method)};
    const std::string path{route};
    families_->requests.Add({{"method", verb}, {"route", path}, {"code", std::to_string(status)}}).Increment();
    families_->latency.Add({{"method", std::move(verb)}, {"route", path}}, request_buckets).Observe(took.count());
}

void Metrics::refused(net::Method method, unsigned status) {
    families_->requests
        .Add({{"method", std::string{net::name_of(method)}}, {"route", "unmatched"}, {"code", std::to_string(status)}})
        .Increment();
}

void Metrics::loop_lag(std::chrono::duration<double> lag) { families_->lag.Observe(lag.count()); }

std::string Metrics::expose(const Now& now) {
    auto& f = *families_;
    f.running.Set(static_cast<double>(now.vms_running));
    f.managed.Set(static_cast<double>(now.vms_managed));
    f.unfinished.Set(static_cast<double>(now.operations_unfinished));
    f.connections.Set(static_cast<double>(now.connections));
    f.connected.Set(now.hypervisor_connected ? 1 : 0);
    f.orphans.Set(static_cast<double>(now.orphans));
    f.last_event.Set(static_cast<double>(now.last_event));
    f.state_sound.Set(now.state_sound ? 1 : 0);
    f.dropped.Set(static_cast<double>(now.log_records_dropped));
    for (const auto& stream : now.streams) {
        const std::string kind{name_of(stream.kind)};
        f.streams.Add({{"kind", kind}}).Set(static_cast<double>(stream.open));
        count_up_to(f.stream_bytes.Add({{"kind", kind}, {"direction", "in"}}), stream.from_clients);
        count_up_to(f.stream_bytes.Add({{"kind", kind}, {"direction", "out"}}), stream.to_clients);
    }
    set(f.load1, {}, now.host.load ? std::optional{now.host.load->one} : std::nullopt);
    const auto& pressure = now.host.pressure;
    const auto set_pressure = [&](const char* resource, const char* kind, double Pressure::* percent) {
        set(f.pressure, {{"resource", resource}, {"kind", kind}},
            pressure ? std::optional{*pressure.*percent} : std::nullopt);
    };
    set_pressure("cpu", "some", &Pressure::cpu_some);
    set_pressure("memory", "some", &Pressure::memory_some);
    set_pressure("memory", "full", &Pressure::memory_full);
    set_pressure("io", "some", &Pressure::io_some);
    set_pressure("io", "full", &Pressure::io_full);
    const auto source = now.host.power.source;
    set(f.on_battery, {},
        source == PowerSource::unknown ? std::nullopt : std::optional{source == PowerSource::battery ? 1.0 : 0.0});
    for (const auto& lane : now.lanes) {
        f.lanes.Add({{"class", lane.name}, {"state", "all"}}).Set(static_cast<double>(lane.lanes));
        f.lanes.Add({{"class", lane.name}, {"state", "busy"}}).Set(static_cast<double>(lane.busy));
        f.lanes.Add({{"class", lane.name}, {"state", "overdue"}}).Set(static_cast<double>(lane.overdue));
        f.lanes.Add({{"class", lane.name}, {"state", "replaced"}}).Set(static_cast<double>(lane.replaced));
        f.lane_queue.Add({{"class", lane.name}}).Set(static_cast<double>(lane.queued));
        f.breaker.Add({{"class", lane.name}}).Set(lane.breaker_open ? 1 : 0);
    }
    if (now.core) {
        const auto& core = *now.core;
        f.core_beat.Add({}).Set(core.beat_succeeded ? 1 : 0);
        set(f.core_age, {}, core.beat_age);
        set(f.core_round_trip, {}, core.beat_age ? std::optional{core.round_trip} : std::nullopt);
        count_up_to(f.core_beats.Add({{"outcome", "answered"}}), core.beats);
        count_up_to(f.core_beats.Add({{"outcome", "failed"}}), core.beats_failed);
        f.core_facts.Add({}).Set(static_cast<double>(core.facts_waiting));
        f.core_commands.Add({}).Set(static_cast<double>(core.commands_unfinished));
    }
    return prometheus::TextSerializer{}.Serialize(f.registry.Collect());
}

}  // namespace ghost::agent
