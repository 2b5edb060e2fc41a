// Tells systemd how we are (sd_notify); silent when it didn't start us.
#pragma once

#include "base/clock.hpp"

#include <functional>
#include <string>

namespace ghost::agent {

// The service manager, as a seam.
struct ServiceManager {
    // "READY=1", "WATCHDOG=1", "STOPPING=1", ... as sd_notify(3) has them. Empty: there is nobody to tell.
    std::function<void(const std::string&)> tell = {};
    // How often it is told that the loop turns: a third of what its watchdog allows, if it has one.
    base::Duration interval = std::chrono::seconds{10};
};
[[nodiscard]] ServiceManager make_service_manager();

}  // namespace ghost::agent
