// virt::Hypervisor on libvirt: blocking calls on lanes, events on the loop.
#pragma once

#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "virt/event_bridge.hpp"
#include "virt/event_queue.hpp"
#include "virt/hypervisor.hpp"
#include "virt/kvm_access.hpp"
#include "virt/lane_pool.hpp"

#include <boost/asio/io_context.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace ghost::virt {

struct LibvirtOptions {
    LaneOptions lanes = {};
    std::size_t event_limit = 1024;
    // A domain whose monitor didn't answer usage() in time is left alone for `usage_pause`.
    base::Duration usage_limit = std::chrono::seconds{10};  // a lane's first call opens its connection
    base::Duration usage_pause = std::chrono::seconds{40};
    VirtType virt_type = VirtType::automatic;
    std::string kvm_device = "/dev/kvm";
};

// One per process: it owns the process's event bridge. Made before any other libvirt connection. close() it, then let
// the loop run once more, before it goes: what libvirt frees late is freed there.
class LibvirtHypervisor final : public Hypervisor {
public:
    LibvirtHypervisor(boost::asio::io_context& context, std::string uri, base::Clock& clock, base::Random& random,
                      base::Log& log, LibvirtOptions options = {});
    ~LibvirtHypervisor() override;
    LibvirtHypervisor(const LibvirtHypervisor&) = delete;
    LibvirtHypervisor& operator=(const LibvirtHypervisor&) = delete;

    [[nodiscard]] boost::asio::awaitable<void> run() override;
    [[nodiscard]] boost::asio::awaitable<void> close(std::chrono::milliseconds grace) override;
    [[nodiscard]] const Link& link() const override;
    [[nodiscard]] boost::asio::awaitable<Event> next_event() override;
    [[nodiscard]] std::vector<LaneStats> lanes() const override;

    [[nodiscard]] Task<std::vector<DomainInfo>> domains() override;
    [[nodiscard]] Task<DomainInfo> domain(std::string uuid) override;
    [[nodiscard]] Task<std::vector<DomainState>> states() override;
    [[nodiscard]] Task<std::vector<DiskFile>> disk_files() override;
    [[nodiscard]] Task<DomainUsage> usage(std::string uuid) override;
    [[nodiscard]] Task<Addresses> addresses(std::string uuid, bool ask_guest) override;
    [[nodiscard]] Task<ConsoleDevice> console(std::string uuid) override;
    [[nodiscard]] Task<base::Descriptor> open_display(std::string uuid) override;
    [[nodiscard]] Task<Picture> screenshot(std::string uuid) override;
    [[nodiscard]] Task<GuestRun> run_in_guest(std::string uuid, GuestCommand command) override;
    [[nodiscard]] Task<std::int64_t> open_guest_file(std::string uuid, std::string path, GuestFileMode mode) override;
    [[nodiscard]] Task<GuestPiece> read_guest_file(std::string uuid, std::int64_t handle) override;
    [[nodiscard]] Task<void> write_guest_file(std::string uuid, std::int64_t handle, std::string bytes) override;
    [[nodiscard]] Task<void> close_guest_file(std::string uuid, std::int64_t handle) override;
    [[nodiscard]] Task<void> set_guest_time(std::string uuid, base::Wall now) override;

    [[nodiscard]] Task<void> define(DomainSpec spec, Stalled stalled) override;
    [[nodiscard]] Task<void> undefine(std::string uuid, Stalled stalled) override;
    [[nodiscard]] Task<void> start(std::string uuid, Stalled stalled) override;
    [[nodiscard]] Task<void> request_shutdown(std::string uuid) override;
    [[nodiscard]] Task<void> power_off(std::string uuid, Stalled stalled = {}) override;
    [[nodiscard]] Task<void> reset(std::string uuid, Stalled stalled) override;
    [[nodiscard]] Task<void> pause(std::string uuid, Stalled stalled) override;
    [[nodiscard]] Task<void> resume(std::string uuid, Stalled stalled) override;
    [[nodiscard]] Task<void> save(std::string uuid, Stalled stalled) override;
    [[nodiscard]] Task<void> abort_job(std::string uuid) override;
    [[nodiscard]] Task<void> resize(std::string uuid, unsigned vcpus, std::uint64_t memory_mib,
                                    Stalled stalled) override;
    [[nodiscard]] Task<void> set_autostart(std::string uuid, bool on, Stalled stalled) override;
    [[nodiscard]] Task<void> set_record(std::string uuid, std::string record, Stalled stalled) override;

    [[nodiscard]] Task<void> rename(std::string uuid, std::string name, Stalled stalled) override;

    [[nodiscard]] Task<NetworkInfo> ensure_network(std::string name, Stalled stalled = {}) override;
    [[nodiscard]] Task<PoolInfo> ensure_pool(std::string name, std::string create_at) override;

    // Watches and timers of libvirt that are alive; 0 some turns of the loop after close().
    [[nodiscard]] std::size_t live_watches() const noexcept { return bridge_.live(); }

private:
    // Shared with what may outlive us: jobs and hooks of lanes that were left behind.
    class HostState;
    struct LinkState;

    using DomainWork = std::function<base::Result<void>(virConnectPtr, const std::string& uuid)>;
    [[nodiscard]] LaneHooks hooks();
    // On the guest lanes. overloaded: by its limit it hadn't been begun.
    template <class T>
    [[nodiscard]] Task<T> ask_guest(std::string key, base::Duration limit, LanePool::Work<T> work);
    [[nodiscard]] Task<void> change(std::string uuid, base::Duration limit, DomainWork work, Stalled stalled);
    [[nodiscard]] base::Result<void> check_usage_pause(const std::string& uuid) const;

    // How long an agent's answers may take, and within that libvirt waits for a sign of life, at most twice.
    static constexpr base::Duration agent_limit = std::chrono::seconds{10};
    static constexpr int agent_seconds = 3;

    base::Clock& clock_;
    LibvirtOptions options_;
    EventBridge bridge_;  // outlives every connection
    std::shared_ptr<HostState> host_;
    std::shared_ptr<EventQueue> events_;
    std::shared_ptr<LinkState> state_;
    LanePool lanes_;
};

}  // namespace ghost::virt
