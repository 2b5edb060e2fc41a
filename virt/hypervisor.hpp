// What the agent needs from a hypervisor: the one seam between its services
// and libvirt. LibvirtHypervisor is the real one, tests/fakes has one in memory.
//
// Everything here is called on the loop and never blocks it. Calls about one
// domain run in the order given. Reads resume with deadline_exceeded when the
// hypervisor is slow. Changes can't be recalled once begun: past their deadline
// they call `stalled` once and go on waiting, and resume when the truth is
// known. A change that hadn't begun by its deadline resumes with
// hypervisor_unavailable, and nothing was done. With every lane of a class
// overdue, calls of that class fail at once with hypervisor_unavailable; with a
// full queue, with overloaded. Other errors: not_found, already_exists,
// state_conflict, hypervisor_error (libvirt's words).
#pragma once

#include "base/descriptor.hpp"
#include "base/error.hpp"
#include "virt/domain.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ghost::virt {

struct HostInfo {
    std::string uri;
    std::string kind;             // "kvm" | "qemu" | "test"
    std::string no_kvm;           // for "qemu": why guests are emulated, in words
    std::string libvirt_version;  // "9.0.0"
    std::string qemu_version;     // "7.2.22", empty for the test driver
    std::string architecture;     // "x86_64"
    unsigned cpus = 0;
    std::uint64_t memory_mib = 0;
};

struct Link {
    bool connected = false;
    base::Wall since;
    std::string reason;  // why not, in words; empty when connected
    HostInfo host;       // of the last connection
};

struct Event {
    enum class Kind : std::uint8_t {
        link_up,  // connected, events registered: read everything again
        link_down,
        domain,    // `uuid` changed: read it again
        network,   // network `uuid` changed (name)
        overflow,  // events were lost: read everything again
    };
    Kind kind = Kind::domain;
    std::string uuid;
    std::string what;  // "started", "stopped", "defined", "undefined", "agent_connected", ... for logs
};

struct NetworkInfo {
    std::string name;
    bool active = false;
    std::string bridge;
};
struct PoolInfo {
    std::string name;
    std::string path;  // directory of a file-based pool
};

inline constexpr std::size_t max_addresses = 64;  // of a guest; one that has more is known by these

// IPv4 and global IPv6 addresses of a guest, by who told; one may be in both.
struct Addresses {
    std::vector<std::string> leases;  // the networks' DHCP servers
    std::vector<std::string> guest;   // the guest agent
};

// A program for the guest agent to run.
struct GuestCommand {
    std::vector<std::string> argv;              // its path or name, then its arguments; not empty
    std::vector<std::string> environment = {};  // "NAME=value", and nothing else; empty: the guest agent's own
    std::string input = {};                     // its standard input, any bytes
    std::size_t max_output = 48 * 1024;         // of standard output and of standard error, each; the rest is dropped
    base::Duration limit = std::chrono::minutes{2};  // how long it is waited for
};

// More can't be handed to a guest's agent in one go.
inline constexpr std::size_t max_guest_input = 64 * 1024;     // bytes of a program's input
inline constexpr std::size_t max_guest_command = 128 * 1024;  // of all of it, written as JSON, the input in Base64

// What came of a program that the guest agent was to run.
struct GuestRun {
    enum class How : std::uint8_t {
        no_agent,     // none is there, or none that answers
        not_allowed,  // the guest forbids its agent to run programs
        failed,       // the agent couldn't, `output` has its words
        exited,
    };
    How how = How::no_agent;
    int exit_code = 0;        // 128 when a signal ended it
    std::string output = {};  // what it printed: bytes of a guest's choice
    std::string errors = {};  // on standard error
    bool truncated = false;   // there was more of either
};

// Where a running domain's first serial console is to be had on this host.
struct ConsoleDevice {
    enum class Kind : std::uint8_t {
        socket,  // a Unix socket that QEMU listens on, for one peer at a time
        pty,     // a pseudo-terminal; whoever else reads it takes bytes away
    };
    Kind kind = Kind::socket;
    std::string path;
};

struct Picture {
    std::string media_type;  // "image/png"
    std::string bytes;
};

// A piece of a guest's file.
struct GuestPiece {
    std::string bytes;
    bool end = false;  // and there is no more
};
inline constexpr std::size_t max_guest_piece = 256 * 1024;  // bytes of a file, in one call
enum class GuestFileMode : std::uint8_t { read, write };    // write: made anew, or emptied

// Of each class of lanes, for metrics and health.
struct LaneStats {
    std::string name;
    std::size_t lanes = 0;
    std::size_t busy = 0;
    std::size_t overdue = 0;
    std::size_t queued = 0;
    std::uint64_t replaced = 0;
    std::uint64_t completed = 0;
    bool breaker_open = false;
};

class Hypervisor {
public:
    using Stalled = std::function<void()>;
    template <class T>
    using Task = boost::asio::awaitable<base::Result<T>>;

    virtual ~Hypervisor() = default;

    // Connects, keeps connected, feeds next_event(); ends when cancelled. Spawned once by App.
    [[nodiscard]] virtual boost::asio::awaitable<void> run() = 0;
    // Lets go of every connection; a lane that doesn't come back within `grace` is left behind.
    [[nodiscard]] virtual boost::asio::awaitable<void> close(std::chrono::milliseconds grace) = 0;
    [[nodiscard]] virtual const Link& link() const = 0;
    // One reader. Bounded: what doesn't fit becomes one `overflow`.
    [[nodiscard]] virtual boost::asio::awaitable<Event> next_event() = 0;
    [[nodiscard]] virtual std::vector<LaneStats> lanes() const = 0;

    // Reads.
    [[nodiscard]] virtual Task<std::vector<DomainInfo>> domains() = 0;
    [[nodiscard]] virtual Task<DomainInfo> domain(std::string uuid) = 0;
    [[nodiscard]] virtual Task<std::vector<DomainState>> states() = 0;
    // Of the disks of all domains, whoever's they are, as they run and as they are defined, right now.
    [[nodiscard]] virtual Task<std::vector<DiskFile>> disk_files() = 0;
    // deadline_exceeded: the domain's monitor, or libvirt, didn't answer; the domain is left alone for a while then,
    // hypervisor_unavailable. overloaded: it wasn't asked in time, since others' monitors didn't answer.
    [[nodiscard]] virtual Task<DomainUsage> usage(std::string uuid) = 0;
    // From the networks' leases, and from the guest agent when `ask_guest`.
    [[nodiscard]] virtual Task<Addresses> addresses(std::string uuid, bool ask_guest) = 0;

    // state_conflict: it doesn't run, or has no serial console that can be reached.
    [[nodiscard]] virtual Task<ConsoleDevice> console(std::string uuid) = 0;
    // A new connection to the VNC server of a domain that runs: a socket. state_conflict: it doesn't run, or has no VNC
    // display; deadline_exceeded: its monitor didn't answer; overloaded: it was never asked.
    [[nodiscard]] virtual Task<base::Descriptor> open_display(std::string uuid) = 0;
    // Of its first display, as it is now, at most 32 MiB. Errors as above.
    [[nodiscard]] virtual Task<Picture> screenshot(std::string uuid) = 0;

    // Runs a program in a guest that runs. deadline_exceeded: the agent fell silent, or the program didn't end within
    // its limit and may go on; overloaded: it was never begun, for others' calls are waited for; body_too_large: the
    // command is longer than the limits above.
    [[nodiscard]] virtual Task<GuestRun> run_in_guest(std::string uuid, GuestCommand command) = 0;
    // Files in a guest that runs, through its agent: opened, read or written from the beginning piece by piece, closed.
    // A handle is the guest's own number for it, and good until the guest or its agent starts anew. state_conflict: it
    // doesn't run, no agent answers in it, or the agent says no (a sentence in its words); deadline_exceeded: the agent
    // fell silent; overloaded: it was never asked, for others' calls are waited for.
    [[nodiscard]] virtual Task<std::int64_t> open_guest_file(std::string uuid, std::string path,
                                                             GuestFileMode mode) = 0;
    // At most max_guest_piece bytes.
    [[nodiscard]] virtual Task<GuestPiece> read_guest_file(std::string uuid, std::int64_t handle) = 0;
    // `bytes`: at most max_guest_piece, body_too_large. All of them, or an error, and then it isn't known how many.
    [[nodiscard]] virtual Task<void> write_guest_file(std::string uuid, std::int64_t handle, std::string bytes) = 0;
    // Only then what was written is in the file for sure: it may fail for want of room.
    [[nodiscard]] virtual Task<void> close_guest_file(std::string uuid, std::int64_t handle) = 0;
    // Has the guest agent set the clock of a guest that runs: `now` is the time, and what passes until the agent is
    // asked is added. state_conflict: it doesn't run, or no agent answers in it; deadline_exceeded: the agent fell
    // silent and may do it yet; overloaded: it was never asked, for others' calls are waited for.
    [[nodiscard]] virtual Task<void> set_guest_time(std::string uuid, base::Wall now) = 0;

    // Changes of one domain.
    [[nodiscard]] virtual Task<void> define(DomainSpec spec,
                                            Stalled stalled) = 0;  // already_exists: name or uuid taken
    // With its saved state, NVRAM and snapshot metadata, never its disks; one that runs, since a start that was under
    // way came to its end, is powered off first. A domain that isn't there is a success.
    [[nodiscard]] virtual Task<void> undefine(std::string uuid, Stalled stalled) = 0;
    [[nodiscard]] virtual Task<void> start(std::string uuid,
                                           Stalled stalled) = 0;  // from its saved state if it has one
    // Asks the guest (agent first, then ACPI) and returns; the event tells when it is off.
    [[nodiscard]] virtual Task<void> request_shutdown(std::string uuid) = 0;
    // Passes every queue of the domain. Already off is a success.
    [[nodiscard]] virtual Task<void> power_off(std::string uuid, Stalled stalled = {}) = 0;
    [[nodiscard]] virtual Task<void> reset(std::string uuid, Stalled stalled) = 0;
    [[nodiscard]] virtual Task<void> pause(std::string uuid, Stalled stalled) = 0;
    [[nodiscard]] virtual Task<void> resume(std::string uuid, Stalled stalled) = 0;
    [[nodiscard]] virtual Task<void> save(std::string uuid, Stalled stalled) = 0;  // managed save: `suspended`
    // Ends the domain's long job (a save): the call that began it fails then. Passes every queue of the domain. No job
    // is a success.
    [[nodiscard]] virtual Task<void> abort_job(std::string uuid) = 0;
    // Edits the persistent definition; a running domain keeps what it has until it is stopped and started.
    [[nodiscard]] virtual Task<void> resize(std::string uuid, unsigned vcpus, std::uint64_t memory_mib,
                                            Stalled stalled) = 0;
    [[nodiscard]] virtual Task<void> set_autostart(std::string uuid, bool on, Stalled stalled) = 0;
    // Replaces our metadata element, live and persistent.
    [[nodiscard]] virtual Task<void> set_record(std::string uuid, std::string record, Stalled stalled) = 0;

    // Of a domain that is off, without snapshots; named so already is a success. already_exists: the name is taken.
    [[nodiscard]] virtual Task<void> rename(std::string uuid, std::string name, Stalled stalled) = 0;

    // Host objects.
    // Starts the network; when `name` is "default" and it isn't there, defines it first (NAT, 192.168.122.0/24, or the
    // next free one of 192.168.123-139 when a host route clashes). not_found for another missing one.
    [[nodiscard]] virtual Task<NetworkInfo> ensure_network(std::string name, Stalled stalled = {}) = 0;
    // Starts pool `name`; when `create_at` isn't empty and the pool isn't there, defines a directory pool at that path.
    [[nodiscard]] virtual Task<PoolInfo> ensure_pool(std::string name, std::string create_at) = 0;
};

}  // namespace ghost::virt
