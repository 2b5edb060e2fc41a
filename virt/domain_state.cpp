#include "virt/domain_state.hpp"

#include <libvirt/libvirt.h>

#include <cstddef>
#include <span>

namespace ghost::virt {
namespace {

// Indexed by libvirt's enumerators, which are part of its ABI and only ever grow.
constexpr std::string_view running_reasons[] = {"unknown",       "booted",   "migrated",           "restored",
                                                "from_snapshot", "unpaused", "migration_canceled", "save_canceled",
                                                "wakeup",        "crashed",  "postcopy",           "postcopy_failed"};
constexpr std::string_view paused_reasons[] = {
    "unknown",       "user",     "migration", "save",        "dump",     "io_error",        "watchdog", "from_snapshot",
    "shutting_down", "snapshot", "crashed",   "starting_up", "postcopy", "postcopy_failed", "api_error"};
constexpr std::string_view off_reasons[] = {"unknown", "shutdown", "destroyed",     "crashed", "migrated",
                                            "saved",   "failed",   "from_snapshot", "daemon"};
static_assert(running_reasons[VIR_DOMAIN_RUNNING_POSTCOPY] == "postcopy");
static_assert(paused_reasons[VIR_DOMAIN_PAUSED_IOERROR] == "io_error");
static_assert(paused_reasons[VIR_DOMAIN_PAUSED_POSTCOPY_FAILED] == "postcopy_failed");
static_assert(off_reasons[VIR_DOMAIN_SHUTOFF_DAEMON] == "daemon");

std::string reason_in(std::span<const std::string_view> reasons, int reason) {
    const auto index = static_cast<std::size_t>(reason);
    return std::string{reason >= 0 && index < reasons.size() ? reasons[index] : "unknown"};
}

}  // namespace

PowerState power_of(int state, int reason, bool saved) {
    switch (state) {
        case VIR_DOMAIN_RUNNING: return {Power::running, reason_in(running_reasons, reason)};
        case VIR_DOMAIN_BLOCKED: return {Power::running, "blocked"};
        case VIR_DOMAIN_SHUTDOWN: return {Power::running, "shutting_down"};
        case VIR_DOMAIN_PAUSED:
            // A guest that panicked is kept paused when its definition says so.
            return {reason == VIR_DOMAIN_PAUSED_CRASHED ? Power::crashed : Power::paused,
                    reason_in(paused_reasons, reason)};
        case VIR_DOMAIN_SHUTOFF:
            if (saved) return {Power::suspended, "saved"};
            return {reason == VIR_DOMAIN_SHUTOFF_CRASHED ? Power::crashed : Power::off, reason_in(off_reasons, reason)};
        case VIR_DOMAIN_CRASHED: return {Power::crashed, "crashed"};
        // It sleeps of its own accord: its QEMU runs and holds all its memory.
        case VIR_DOMAIN_PMSUSPENDED: return {Power::running, "guest_sleeps"};
        default: return {Power::unknown, "unknown"};
    }
}

std::string_view lifecycle_word(int event, int detail) noexcept {
    switch (event) {
        case VIR_DOMAIN_EVENT_DEFINED: return "defined";
        case VIR_DOMAIN_EVENT_UNDEFINED: return "undefined";
        case VIR_DOMAIN_EVENT_STARTED: return "started";
        case VIR_DOMAIN_EVENT_SUSPENDED: return "suspended";
        case VIR_DOMAIN_EVENT_RESUMED: return "resumed";
        case VIR_DOMAIN_EVENT_STOPPED: return detail == VIR_DOMAIN_EVENT_STOPPED_CRASHED ? "crashed" : "stopped";
        case VIR_DOMAIN_EVENT_SHUTDOWN: return "shutting_down";
        case VIR_DOMAIN_EVENT_PMSUSPENDED: return "guest_sleeps";
        case VIR_DOMAIN_EVENT_CRASHED: return "crashed";
        default: return "changed";
    }
}

}  // namespace ghost::virt
