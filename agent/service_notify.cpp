#include "agent/service_notify.hpp"

#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace ghost::agent {

ServiceManager make_service_manager() {
    ServiceManager manager;
    // Read once at the start, before there is a second thread.
    if (std::getenv("NOTIFY_SOCKET") == nullptr) return manager;  // NOLINT(concurrency-mt-unsafe)
    manager.tell = [](const std::string& state) { ::sd_notify(0, state.c_str()); };
    std::uint64_t allowed_us = 0;
    if (::sd_watchdog_enabled(0, &allowed_us) > 0)
        manager.interval = std::min<base::Duration>(manager.interval, std::chrono::microseconds{allowed_us / 3});
    return manager;
}

}  // namespace ghost::agent
