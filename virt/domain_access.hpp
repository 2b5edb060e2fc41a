// Ways to a running domain's console and screen, for lane jobs: each call runs
// on the thread that owns `connection`. Errors are those of errc_of(), and
// state_conflict when the domain doesn't run or has no such thing.
#pragma once

#include "base/descriptor.hpp"
#include "base/error.hpp"
#include "virt/connection.hpp"
#include "virt/hypervisor.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace ghost::virt {

inline constexpr std::size_t max_picture = 32 * 1024 * 1024;  // bytes

// Without a QEMU monitor.
[[nodiscard]] base::Result<ConsoleDevice> find_console(virConnectPtr connection, const std::string& uuid);

// These ask the domain's monitor, and hang while its QEMU is stopped.
[[nodiscard]] base::Result<base::Descriptor> connect_display(virConnectPtr connection, const std::string& uuid);
// A PNG, or hypervisor_error.
[[nodiscard]] base::Result<Picture> take_picture(virConnectPtr connection, const std::string& uuid);

// ---- What the XML of a running domain tells

// The first console that can be reached on this host, serial ones first.
[[nodiscard]] base::Result<ConsoleDevice> console_of(std::string_view xml);
// Which of its displays speaks VNC, as virDomainOpenGraphicsFD counts them.
[[nodiscard]] base::Result<unsigned> vnc_display_of(std::string_view xml);

}  // namespace ghost::virt
