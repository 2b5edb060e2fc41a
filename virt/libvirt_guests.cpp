// LibvirtHypervisor's ways into guests that run: their consoles, their screens, and what their agents do.
#include "virt/domain_access.hpp"
#include "virt/guest_agent.hpp"
#include "virt/libvirt_hypervisor.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

namespace ghost::virt {
namespace {

using base::Errc;
using base::Result;
using namespace std::chrono_literals;

constexpr auto console_limit = 10s;
constexpr auto display_limit = 5s;
constexpr auto picture_limit = 10s;
// Between looks at a program that runs.
constexpr base::Duration first_pause = 50ms;
constexpr base::Duration last_pause = 2s;

// Of one domain one at a time: while its QEMU is stopped, no more than a lane waits for it.
std::string screen_key(const std::string& uuid) { return "display:" + uuid; }

}  // namespace

template <class T>
Hypervisor::Task<T> LibvirtHypervisor::ask_guest(std::string key, base::Duration limit, LanePool::Work<T> work) {
    const auto asked = std::make_shared<std::atomic<bool>>(false);
    LanePool::Work<T> noted = [asked, work = std::move(work)](virConnectPtr c) {
        *asked = true;
        return work(c);
    };
    auto answer = co_await lanes_.read<T>(LaneClass::guest, std::move(key), limit, std::move(noted));
    if (!answer && answer.error().code == Errc::deadline_exceeded && !*asked)
        co_return base::fail(Errc::overloaded, "other guests' calls are waited for");
    co_return answer;
}

// ---- Console and screen

Hypervisor::Task<ConsoleDevice> LibvirtHypervisor::console(std::string uuid) {
    LanePool::Work<ConsoleDevice> work = [uuid](virConnectPtr c) { return find_console(c, uuid); };
    return lanes_.read<ConsoleDevice>(LaneClass::query, std::move(uuid), console_limit, std::move(work));
}

Hypervisor::Task<base::Descriptor> LibvirtHypervisor::open_display(std::string uuid) {
    auto key = screen_key(uuid);
    LanePool::Work<base::Descriptor> work = [uuid = std::move(uuid)](virConnectPtr c) {
        return connect_display(c, uuid);
    };
    return ask_guest<base::Descriptor>(std::move(key), display_limit, std::move(work));
}

Hypervisor::Task<Picture> LibvirtHypervisor::screenshot(std::string uuid) {
    auto key = screen_key(uuid);
    LanePool::Work<Picture> work = [uuid = std::move(uuid)](virConnectPtr c) { return take_picture(c, uuid); };
    return ask_guest<Picture>(std::move(key), picture_limit, std::move(work));
}

// ---- The guest agent

// No lane waits for the program: it is looked at now and then.
Hypervisor::Task<GuestRun> LibvirtHypervisor::run_in_guest(std::string uuid, GuestCommand command) {
    auto checked = check_guest_command(command);
    if (!checked) co_return base::fail(std::move(checked).error());
    const auto deadline = clock_.now() + command.limit;
    const auto max_output = command.max_output;
    LanePool::Work<GuestStart> begin = [uuid, text = *std::move(checked)](virConnectPtr c) {
        return begin_guest_run(c, uuid, text, agent_seconds);
    };
    const auto begun = co_await ask_guest<GuestStart>(uuid, agent_limit, std::move(begin));
    if (!begun) co_return base::fail(begun.error());
    if (!begun->pid) co_return begun->refused;
    auto pause = first_pause;
    // At its limit it is looked at for the last time.
    while (co_await clock_.sleep_for(std::clamp(deadline - clock_.now(), base::Duration::zero(), pause))) {
        using Seen = std::optional<GuestRun>;
        LanePool::Work<Seen> look = [uuid, max_output, pid = *begun->pid](virConnectPtr c) {
            return look_at_guest_run(c, uuid, pid, max_output, agent_seconds);
        };
        const auto seen = co_await ask_guest<Seen>(uuid, agent_limit, std::move(look));
        if (!seen && seen.error().code != Errc::overloaded) co_return base::fail(seen.error());
        if (seen && *seen) co_return **seen;
        if (clock_.now() >= deadline) co_return base::fail(Errc::deadline_exceeded, "the program in the guest goes on");
        pause = std::min(2 * pause, last_pause);
    }
    co_return base::fail(Errc::cancelled, "nobody waits for the program in the guest any more");
}

Hypervisor::Task<std::int64_t> LibvirtHypervisor::open_guest_file(std::string uuid, std::string path,
                                                                  GuestFileMode mode) {
    LanePool::Work<std::int64_t> work = [uuid, mode, path = std::move(path)](virConnectPtr c) {
        return open_in_guest(c, uuid, path, mode, agent_seconds);
    };
    return ask_guest<std::int64_t>(std::move(uuid), agent_limit, std::move(work));
}

Hypervisor::Task<GuestPiece> LibvirtHypervisor::read_guest_file(std::string uuid, std::int64_t handle) {
    LanePool::Work<GuestPiece> work = [uuid, handle](virConnectPtr c) {
        return read_in_guest(c, uuid, handle, agent_seconds);
    };
    return ask_guest<GuestPiece>(std::move(uuid), agent_limit, std::move(work));
}

Hypervisor::Task<void> LibvirtHypervisor::write_guest_file(std::string uuid, std::int64_t handle, std::string bytes) {
    if (bytes.size() > max_guest_piece)
        co_return base::fail(Errc::body_too_large, "that is more than is written to a guest's file in one go");
    for (std::size_t at = 0; at < bytes.size(); at += max_write) {
        LanePool::Work<void> work = [uuid, handle, part = bytes.substr(at, max_write)](virConnectPtr c) {
            return write_in_guest(c, uuid, handle, part, agent_seconds);
        };
        if (auto done = co_await ask_guest<void>(uuid, agent_limit, std::move(work)); !done) co_return done;
    }
    co_return Result<void>{};
}

Hypervisor::Task<void> LibvirtHypervisor::close_guest_file(std::string uuid, std::int64_t handle) {
    LanePool::Work<void> work = [uuid, handle](virConnectPtr c) {
        return close_in_guest(c, uuid, handle, agent_seconds);
    };
    return ask_guest<void>(std::move(uuid), agent_limit, std::move(work));
}

Hypervisor::Task<void> LibvirtHypervisor::set_guest_time(std::string uuid, base::Wall now) {
    // A lane may outlive the clock that we were given.
    LanePool::Work<void> work = [uuid, now, since = std::chrono::steady_clock::now()](virConnectPtr c) {
        const auto waited = std::chrono::steady_clock::now() - since;
        return set_guest_clock(c, uuid, now + std::chrono::duration_cast<base::Wall::duration>(waited), agent_seconds);
    };
    return ask_guest<void>(std::move(uuid), agent_limit, std::move(work));
}

}  // namespace ghost::virt
