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
// `exec_command`: as check_guest_command() gives it.
[[nodiscard]] base::Result<GuestStart> begin_guest_run(virConnectPtr connection, const std::string& uuid,
                                                       const std::string& exec_command, int agent_seconds);

// Nothing while it runs. The agent forgets a program when it has told of its end. deadline_exceeded: it fell silent.
[[nodiscard]] base::Result<std::optional<GuestRun>> look_at_guest_run(virConnectPtr connection, const std::string& uuid,
                                                                      std::int64_t pid, std::size_t max_output,
                                                                      int agent_seconds);

// The guest's files. state_conflict: it doesn't run, no agent answers, or the agent says no.
[[nodiscard]] base::Result<std::int64_t> open_in_guest(virConnectPtr connection, const std::string& uuid,
                                                       const std::string& path, GuestFileMode mode, int agent_seconds);
[[nodiscard]] base::Result<GuestPiece> read_in_guest(virConnectPtr connection, const std::string& uuid,
                                                     std::int64_t handle, int agent_seconds);
[[nodiscard]] base::Result<void> write_in_guest(virConnectPtr connection, const std::string& uuid, std::int64_t handle,
                                                std::string_view bytes, int agent_seconds);
[[nodiscard]] base::Result<void> close_in_guest(virConnectPtr connection, const std::string& uuid, std::int64_t handle,
                                                int agent_seconds);

// state_conflict: the guest doesn't run, or no agent answers.
[[nodiscard]] base::Result<void> set_guest_clock(virConnectPtr connection, const std::string& uuid, base::Wall time,
                                                 int agent_seconds);

// Libvirt 9 garbles a command that its socket to the agent doesn't take at once, some 200 KiB.
inline constexpr std::size_t max_write = 48 * 1024;  // bytes of a file
// What the agent is to hear. body_too_large: it can't be handed it.
[[nodiscard]] base::Result<std::string> check_guest_command(const GuestCommand& command);

// ---- What the agent says and hears, as JSON. A guest's answers may be anything at all.

[[nodiscard]] std::string guest_exec_command(const GuestCommand& command);
[[nodiscard]] std::string guest_file_open_command(const std::string& path, GuestFileMode mode);
[[nodiscard]] std::string guest_file_write_command(std::int64_t handle, std::string_view bytes);
[[nodiscard]] std::optional<std::int64_t> read_guest_exec(std::string_view answer);
// `max_output`: of each stream.
[[nodiscard]] std::optional<GuestRun> read_guest_exec_status(std::string_view answer, std::size_t max_output);
// False only if the agent says so: guest-info lists what it was told to refuse.
[[nodiscard]] bool allows_guest_exec(std::string_view guest_info);
// Nothing for what can't be read, and for what says of itself that it isn't whole.
[[nodiscard]] std::optional<std::int64_t> read_guest_file_open(std::string_view answer);
[[nodiscard]] std::optional<GuestPiece> read_guest_file_read(std::string_view answer);
[[nodiscard]] std::optional<std::int64_t> read_guest_file_write(std::string_view answer);  // how many bytes

}  // namespace ghost::virt
