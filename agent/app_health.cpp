// What the agent looks at to tell whether it is well.
#include "agent/app.hpp"

#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace ghost::agent {
namespace {

constexpr std::chrono::milliseconds bad_lag{100};

}  // namespace

void App::add_health_checks() {
    health_.add("libvirt", [this]() -> CheckResult {
        const auto& link = s_.hypervisor.link();
        if (!link.connected) return {CheckStatus::down, link.reason.empty() ? "not connected yet" : link.reason};
        for (const auto& lane : s_.hypervisor.lanes())
            // Guests' agents, monitors and processes that won't die hang by themselves.
            if (lane.breaker_open && lane.name != "guest" && lane.name != "control")
                return {CheckStatus::down, fmt::format("every {} call is overdue: libvirt doesn't answer", lane.name)};
        for (const auto& lane : s_.hypervisor.lanes())
            if (lane.overdue > 0)
                return {CheckStatus::degraded, fmt::format("{} {} call(s) overdue", lane.overdue, lane.name)};
        if (!observer_.synced()) return {CheckStatus::degraded, "the domains are being read"};
        return {};
    });
    health_.add("network", [this]() -> CheckResult {
        return network_fault_.empty() ? CheckResult{} : CheckResult{CheckStatus::degraded, network_fault_};
    });
    health_.add("storage", [this]() -> CheckResult {
        const auto& space = disk_watch_.space();
        boost::json::object figures{{"free_bytes", space.free}, {"total_bytes", space.total}};
        if (!disk_watch_.fault().empty()) return {CheckStatus::down, disk_watch_.fault(), std::move(figures)};
        if (!pool_fault_.empty()) return {CheckStatus::degraded, pool_fault_, std::move(figures)};
        if (space.free < capacity_.reserve().disk_bytes)
            return {CheckStatus::degraded, "less is free than is reserved for the host's owner", std::move(figures)};
        return {CheckStatus::up, "", std::move(figures)};
    });
    health_.add("state", [this]() -> CheckResult {
        const auto store = s_.store.health();
        const auto faulty = [](std::string why) { return CheckResult{CheckStatus::degraded, std::move(why)}; };
        if (!store.fault.empty()) return faulty(store.fault);
        if (!store.loss.empty()) return faulty(store.loss);
        if (!store.reserve) return faulty("the disk is nearly full: the state database's reserve was given up");
        return {};
    });
    health_.add("api", [this]() -> CheckResult {
        return tls_fault_.empty() ? CheckResult{} : CheckResult{CheckStatus::degraded, tls_fault_};
    });
    health_.add("tailnet", [this]() -> CheckResult {
        // A tailnet that nothing needs may be left; GET /v1 says whether it is.
        if (!tailnet_.matters()) return {.applies = false};
        if (!tailnet_.wanted()) return {};
        if (!tailnet_.state().connected) return {CheckStatus::degraded, tailnet_.state().reason};
        auto fault = tailnet_listeners_.fault();
        return fault.empty() ? CheckResult{} : CheckResult{CheckStatus::degraded, std::move(fault)};
    });
    health_.add("loop", [this]() -> CheckResult {
        const auto lag = loop_.last_minute();
        const auto ms = [](std::chrono::microseconds us) {
            return std::round(static_cast<double>(us.count()) / 10.0) / 100.0;
        };
        boost::json::object figures{
            {"lag_p50_ms", ms(lag.p50)}, {"lag_p99_ms", ms(lag.p99)}, {"lag_max_ms", ms(lag.max)}};
        if (lag.p99 > bad_lag) return {CheckStatus::degraded, "the event loop is late", std::move(figures)};
        return {CheckStatus::up, "", std::move(figures)};
    });
}

}  // namespace ghost::agent
