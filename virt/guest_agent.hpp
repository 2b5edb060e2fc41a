// What a domain's guest agent is asked to do, for lane jobs: each call runs on
// the thread that owns `connection` and takes the agent no longer than twice
// `agent_seconds`. Errors are those of errc_of().
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "virt/connection.hpp"
#include "virt/hypervisor.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::virt {

struct GuestStart {
    std::optional<std::int64_t> pid;  // in the guest, whose own it is to tell us anything
    GuestRun refused = {};            // why, without one
};
[[nodiscard]] base::Result<GuestStart> begin_guest_run(virConnectPtr connection, const std::string& uuid,
                                                       const std::vector<std::string>& command, int agent_seconds);

// Nothing while it runs. The agent forgets a program when it has told of its end.
[[nodiscard]] base::Result<std::optional<GuestRun>> look_at_guest_run(virConnectPtr connection, const std::string& uuid,
                                                                      std::int64_t pid, int agent_seconds);

// state_conflict: the guest doesn't run, or no agent answers.
[[nodiscard]] base::Result<void> set_guest_clock(virConnectPtr connection, const std::string& uuid, base::Wall time,
                                                 int agent_seconds);

// ---- What the agent says and hears, as JSON. A guest's answers may be anything at all.

[[nodiscard]] std::string guest_exec_command(const std::vector<std::string>& command);
[[nodiscard]] std::optional<std::int64_t> read_guest_exec(std::string_view answer);
[[nodiscard]] std::optional<GuestRun> read_guest_exec_status(std::string_view answer);
// False only if the agent says so: guest-info lists what it was told to refuse.
[[nodiscard]] bool allows_guest_exec(std::string_view guest_info);

}  // namespace ghost::virt
