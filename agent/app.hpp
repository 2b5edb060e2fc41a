// The composition root: makes every service from the seams it is handed, wires
// them, runs them, and takes them down in order.
#pragma once

#include "agent/access/guest_dialer.hpp"
#include "agent/access/stream_service.hpp"
#include "agent/api/announcer.hpp"
#include "agent/api/routes.hpp"
#include "agent/config/config.hpp"
#include "agent/core/ghost_core.hpp"
#include "agent/events/event_log.hpp"
#include "agent/forwards/forward_service.hpp"
#include "agent/forwards/ports.hpp"
#include "agent/guest/guest_service.hpp"
#include "agent/host/cache_room.hpp"
#include "agent/host/capacity.hpp"
#include "agent/host/disk_watch.hpp"
#include "agent/host/drain.hpp"
#include "agent/host/health.hpp"
#include "agent/host/host_load.hpp"
#include "agent/host/io_resumer.hpp"
#include "agent/host/logind.hpp"
#include "agent/host/loop_monitor.hpp"
#include "agent/host/sleep_watch.hpp"
#include "agent/host/tailnet.hpp"
#include "agent/host/tailnet_listeners.hpp"
#include "agent/images/image_service.hpp"
#include "agent/metrics.hpp"
#include "agent/operations/operation_service.hpp"
#include "agent/orphans/orphan_service.hpp"
#include "agent/service_notify.hpp"
#include "agent/vm/disk_chains.hpp"
#include "agent/vm/guest_clocks.hpp"
#include "agent/vm/missing_files.hpp"
#include "agent/vm/observer.hpp"
#include "agent/vm/vm_index.hpp"
#include "agent/vm/vm_service.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "base/process.hpp"
#include "base/random.hpp"
#include "base/task_group.hpp"
#include "heartbeat/core_link.hpp"
#include "heartbeat/identity.hpp"
#include "net/client.hpp"
#include "net/network_watch.hpp"
#include "net/server.hpp"
#include "net/web.hpp"
#include "storage/fetcher.hpp"
#include "storage/files.hpp"
#include "storage/image_cache.hpp"
#include "storage/signature.hpp"
#include "storage/state_store.hpp"
#include "storage/volumes.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

// The world as the agent sees it. Everything outlives the App; tests hand over fakes.
struct Seams {
    boost::asio::any_io_executor executor;
    base::Clock& clock;
    base::Random& random;
    base::Log& log;
    base::ProcessRunner& processes;
    storage::Files& files;
    storage::StateStore& store;
    virt::Hypervisor& hypervisor;
    net::Server& server;
    net::Web& web;
    ServiceManager service_manager = {};
    heartbeat::CoreLink* core = nullptr;                             // null: no Core can be reached
    std::function<std::vector<std::string>()> local_addresses = {};  // of this host; empty: none are told
    net::Client* tailscaled = nullptr;                               // its local API; null: it isn't asked
    net::NetworkWatch* network = nullptr;                            // null: nobody tells of changes
    // Makes what connects to guests; empty: none is connected to.
    std::function<std::unique_ptr<GuestDialer>(const VmIndex&)> make_dialer = {};
    Ports* ports = nullptr;    // of this host, for forwards; null: nothing is forwarded
    Logind* logind = nullptr;  // without it the host's sleep shows only afterwards
};

// Why the agent can't start, in a sentence that names what to change.
class StartFault : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
    explicit StartFault(const base::Error& error)
        : std::runtime_error(error.detail), passes_(error.code == base::Errc::insufficient_storage) {}

    // A full disk has room again without a word being changed.
    [[nodiscard]] bool passes() const noexcept { return passes_; }

private:
    bool passes_ = false;
};

// What SIGHUP brings, read and validated. `tls`: null when the configuration names no certificates.
struct Reload {
    Config config;
    base::Result<net::TlsContext> tls;
};

class App {
public:
    App(Config config, heartbeat::Identity identity, Seams seams);
    ~App();
    App(const App&) = delete;
    App& operator=(const App&) = delete;

    // Loads the state, opens the listeners, starts everything. Throws StartFault.
    [[nodiscard]] boost::asio::awaitable<void> start();
    // Takes all of it down: readiness off, acceptors closed, requests at hand finished, operations interrupted, lanes
    // closed, database last. VMs are left as they are.
    [[nodiscard]] boost::asio::awaitable<void> stop();
    // Certificates and log level are swapped; what needs a restart is logged.
    void reload(const Reload& fresh);
    // Of the API's certificate files, which it reads: any thread.
    [[nodiscard]] static base::Result<net::TlsContext> load_tls(const Config& config);

    // For tests in process: what the API's listeners are served by.
    [[nodiscard]] const net::Handler& api() const noexcept { return api_; }
    [[nodiscard]] const VmIndex& vms() const noexcept { return index_; }
    [[nodiscard]] OperationService& operations() noexcept { return operations_; }
    [[nodiscard]] const ImageService& images() const noexcept { return images_; }
    [[nodiscard]] const GhostCore& core() const noexcept { return core_; }
    [[nodiscard]] const net::Router& router() const noexcept { return router_; }
    // Why no change is taken; empty: changes are.
    [[nodiscard]] std::string not_ready_because() const;

private:
    [[nodiscard]] std::string no_new_vms_because() const;  // the same, and also while the node is drained
    boost::asio::awaitable<void> load_state();
    boost::asio::awaitable<void> watch_health();
    boost::asio::awaitable<void> follow_network();
    boost::asio::awaitable<void> settle_host_objects();
    boost::asio::awaitable<void> make_host_objects();
    boost::asio::awaitable<void> announce_ready();
    boost::asio::awaitable<void> link_to_core();
    boost::asio::awaitable<void> leave_core();
    boost::asio::awaitable<void> settle_host_boot();
    boost::asio::awaitable<void> back_up_daily();
    boost::asio::awaitable<void> tend_state();
    boost::asio::awaitable<void> image_room_used(std::string name);
    boost::asio::awaitable<void> domains_known(base::Duration limit);
    boost::asio::awaitable<std::uint64_t> owner_lacks();
    boost::asio::awaitable<void> look_after_images();
    void restore_refresh(const std::map<std::string, std::string>& facts);
    boost::asio::awaitable<void> keep_refresh_time();
    boost::asio::awaitable<void> refresh_images_weekly();
    boost::asio::awaitable<void> refresh_image(std::string name);
    void connect_images();
    void use_disk_directory(const std::string& path);
    void recover(const std::vector<Operation>& unfinished);
    // Of the host. What the first does holds its sleep up, for SleepWatch::patience at most.
    boost::asio::awaitable<void> before_sleep();
    void woke(base::Duration slept);
    void add_health_checks();
    void connect_core();
    [[nodiscard]] std::unique_ptr<ForwardService> make_forwards();
    [[nodiscard]] std::optional<Metrics::Now::Core> core_metrics() const;
    void add_routes();
    void open_listeners();
    // `key`: which setting a fault is told of.
    void listen(std::string_view key, const net::Endpoint& endpoint, net::TlsContext tls, net::Handler handler);
    void open_api_listeners();
    void open_health_listener();
    void open_metrics_listener();
    [[nodiscard]] net::Handler metrics_handler();

    Config config_;
    heartbeat::Identity identity_;
    Seams s_;
    base::Wall started_at_;
    std::string disks_dir_;  // where new disks go: ours, or that of the pool the configuration names

    VmIndex index_;
    Observer observer_;
    OperationService operations_;
    EventLog events_;
    storage::Fetcher fetcher_;
    storage::Signatures signatures_;
    storage::ImageCache cache_;
    storage::Volumes volumes_;
    ImageProof proof_;
    ImageService images_;
    DiskChains chains_;
    Capacity capacity_;
    Drain drain_;
    CacheRoom cache_room_;
    DiskWatch disk_watch_;
    LoadWatch load_watch_;
    IoResumer io_resumer_;
    MissingFiles missing_files_;
    GuestClocks guest_clocks_;
    SleepWatch sleep_watch_;
    VmService vms_;
    GuestService guests_;
    OrphanService orphans_;
    std::unique_ptr<GuestDialer> dialer_;  // null: see Seams
    StreamService streams_;
    Tailnet tailnet_;
    TailnetListeners tailnet_listeners_;
    std::unique_ptr<ForwardService> forwards_;  // the same
    LoopMonitor loop_;
    Health health_;
    api::RootFacts facts_;
    api::Answers answers_;
    api::Idempotency idempotency_;
    api::Announcer announcer_;
    Metrics metrics_;
    VmDefaults vm_defaults_;
    net::Router router_;
    net::Handler api_;
    GhostCore core_;
    base::Notifier host_objects_made_;
    bool making_host_objects_ = false;
    base::TaskGroup tasks_;
    base::TaskGroup core_tasks_;  // ends before the goodbye to Core

    std::vector<std::shared_ptr<net::Listener>> tls_listeners_;
    std::string tls_fault_;      // why the TLS listeners are closed; empty when they aren't
    std::string network_fault_;  // of the default network, as it was last made sure of
    std::string pool_fault_;
    std::string last_boot_;    // boot id of the host when the agent last settled it; empty: never
    base::Wall next_refresh_;  // of images; kept in the database
    bool refresh_is_kept_ = false;
    bool stopping_ = false;
};

}  // namespace ghost::agent
