#include "agent/host/host.hpp"

#include <sys/utsname.h>

#include <cmath>

namespace ghost::agent {

std::string node_name(const Config& config) {
    if (!config.agent.name.empty()) return config.agent.name;
    utsname name{};
    return ::uname(&name) == 0 ? name.nodename : "unknown";
}

Reserve reserve_of(const Config& config) {
    const auto& r = config.resources;
    return {.cpus = r.reserved_cpu,
            .memory_mib = static_cast<std::uint64_t>(std::llround(r.reserved_ram_gb * 1024)),
            .disk_bytes = static_cast<std::uint64_t>(std::llround(r.reserved_disk_gb * 1024)) << 20,
            .cpu_overcommit = r.cpu_overcommit};
}

}  // namespace ghost::agent
