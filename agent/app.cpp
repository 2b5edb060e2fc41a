#include "agent/app.hpp"

#include "agent/config/config_loader.hpp"
#include "agent/config/config_values.hpp"
#include "agent/host/host.hpp"
#include "storage/boot_id.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <sys/utsname.h>

#include <algorithm>
#include <filesystem>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::seconds request_grace{10};
constexpr std::chrono::seconds lane_grace{3};
constexpr std::chrono::seconds host_objects_patience{10};
constexpr std::chrono::hours backup_interval{24};
constexpr std::string_view boot_fact = "boot_id";      // in the database
constexpr std::string_view tended_fact = "tended_at";  // when a write was last tried for its own sake
constexpr std::chrono::seconds tend_interval{30};
constexpr std::chrono::seconds host_objects_interval{30};  // between looks while something is wrong with them

std::string machine() {
    utsname name{};
    return ::uname(&name) == 0 ? name.machine : "unknown";
}

// Made by us over our own directory.
bool has_own_pool(const Config& config) { return config.libvirt.storage_pool == Config{}.libvirt.storage_pool; }

CoreSettings core_settings(const Config& config) {
    return {.url = config.agent.api_url,
            .token = config.core.enroll_token,
            .interval = config.agent.heartbeat_interval,
            .state_dir = config.state_dir,
            .certificate = config.core.tls.cert,
            .key = config.core.tls.key,
            .ca = config.core.tls.ca};
}

ForwardRules forward_rules(const Config& config) {
    return {config.forwards.privileged_ports, config.forwards.all_addresses};
}

VmDefaults vm_defaults(const Config& config) {
    return {config.defaults.vcpus, config.defaults.memory_mib, config.defaults.disk_gib, config.libvirt.network,
            forward_rules(config)};
}

ForwardSettings forward_settings(const Config& config) { return {forward_rules(config), config.streams.idle_timeout}; }

std::vector<std::uint16_t> tailnet_ports(const Config& config) {
    std::vector<std::uint16_t> ports;
    for (const auto& address : config.api.listen_addr)
        if (const auto port = parse_tailnet_port(address)) ports.push_back(*port);
    return ports;
}

std::string image_dir(const Config& config) {
    return config.libvirt.image_cache.empty() ? config.state_dir + "/images" : config.libvirt.image_cache;
}

}  // namespace

App::App(Config config, heartbeat::Identity identity, Seams seams)
    : config_(std::move(config)),
      identity_(std::move(identity)),
      s_(std::move(seams)),
      started_at_(s_.clock.wall()),
      disks_dir_(config_.state_dir + "/disks"),
      // The epoch grows at each start, so ETags of an earlier run never come again.
      index_(s_.executor, s_.clock, identity_.epoch << 32U),
      observer_(s_.executor, s_.hypervisor, index_, s_.clock, s_.log),
      operations_(s_.executor, s_.clock, s_.random, s_.store, s_.log),
      events_(s_.executor, s_.clock, s_.store, s_.log, identity_.epoch << 32U),
      fetcher_(s_.web, s_.files, s_.clock, s_.random, config_.images.max_rate),
      signatures_(image_dir(config_), s_.files, s_.processes),
      cache_(image_dir(config_), s_.files, s_.processes, fetcher_),
      volumes_(s_.files, s_.processes),
      proof_(fetcher_, signatures_),
      images_(s_.executor, {cache_, proof_, s_.files, s_.store, operations_, index_, s_.clock, s_.log},
              {config_.images.import_dirs, machine(), config_.images.cache_max, config_.images.catalogue}),
      chains_(observer_, s_.hypervisor, s_.files, volumes_),
      capacity_(index_, reserve_of(config_)),
      drain_(s_.executor, operations_, s_.clock),
      cache_room_(s_.files, capacity_, image_dir(config_)),
      disk_watch_(s_.files, capacity_, s_.clock, s_.log, disks_dir_),
      load_watch_(s_.files, s_.clock),
      io_resumer_(s_.executor, s_.hypervisor, index_, s_.files, s_.clock, s_.log),
      missing_files_(index_, observer_, s_.files, s_.clock, s_.log),
      guest_clocks_(s_.executor, s_.hypervisor, index_, s_.clock, s_.log),
      sleep_watch_(s_.executor, s_.logind, s_.clock, s_.log),
      vms_({index_, s_.hypervisor, observer_, operations_, images_, capacity_, drain_, volumes_, s_.files, s_.store,
            s_.clock, s_.random, s_.log},
           // A pool of another's says where its volumes go once it is there.
           {has_own_pool(config_) ? disks_dir_ : "", config_.state_dir + "/consoles", identity_.install_id}),
      guests_(s_.executor, {index_, s_.hypervisor, operations_, s_.random, s_.log}, config_.guest_access.max_file_size),
      orphans_({index_, vms_, images_, operations_, observer_, s_.files, chains_, s_.clock, s_.log},
               {has_own_pool(config_) ? disks_dir_ : "", config_.state_dir + "/consoles", image_dir(config_)}),
      dialer_(s_.make_dialer ? s_.make_dialer(index_) : nullptr),
      streams_({s_.executor, index_, s_.hypervisor, s_.files, s_.clock, s_.random, s_.log, dialer_.get()},
               config_.streams.idle_timeout),
      tailnet_(s_.executor, {s_.clock, s_.log, s_.files, s_.tailscaled}, config_.tailscale.socket,
               !tailnet_ports(config_).empty()),
      tailnet_listeners_(s_.executor, s_.server, s_.clock, s_.log, tailnet_ports(config_)),
      forwards_(make_forwards()),
      loop_(s_.clock),
      health_(s_.clock, GHOST_VERSION),
      facts_({.name = node_name(config_), .version = GHOST_VERSION, .started_at = started_at_}),
      answers_({operations_, index_, images_, s_.clock,
                [this] {
                    return api::root_resource(
                        {facts_, s_.hypervisor.link(), core_.resource(), core_.status().agent_id, tailnet_, drain_});
                }}),
      idempotency_(s_.executor, answers_, s_.clock),
      announcer_({events_, answers_}),
      metrics_(GHOST_VERSION),
      vm_defaults_(vm_defaults(config_)),
      core_(s_.executor, core_settings(config_),
            {s_.core, identity_, api_, operations_, index_, s_.files, s_.store, s_.clock, s_.random, s_.log},
            CoreNode{{.name = facts_.name,
                      .version = GHOST_VERSION,
                      .features = [] { return api::features(); },
                      .resources = [this] { return resources_json(capacity_.resources(), load_watch_.now()); },
                      .health = health_,
                      .local_addresses = s_.local_addresses,
                      .tailscale_ip = [this] { return tailnet_.state().address(); },
                      .drain = [this] { return drain_.to_json(); }}}),
      host_objects_made_(s_.executor),
      tasks_(s_.executor, s_.log),
      core_tasks_(s_.executor, s_.log) {
    observer_.on_sync = [this] { return settle_host_objects(); };
    observer_.is_ours = [this](const Vm& vm) {
        // One that is being adopted is ours when the adoption says so; the record of one that failed may have been
        // written late.
        const auto adoption = operations_.last_of("vm.adopt", vm.id);
        return vm.plan.installation == identity_.install_id &&
               (!adoption || adoption->state == OperationState::succeeded);
    };
    observer_.is_gone = [this](const Vm& vm) { return operations_.ended_without(vm.id); };
    observer_.on_leftover = [this](const Vm& vm) { tasks_.spawn("leftover " + vm.name, vms_.remove_leftover(vm)); };
    observer_.on_recognised = [this](const Vm& vm) { tasks_.spawn("remember " + vm.name, vms_.remember(vm.id)); };
    io_resumer_.busy = [this](const std::string& id) { return operations_.busy(id); };
    connect_images();
    vms_.on_created = [this] { metrics_.vm_created(); };
    vms_.on_deleted = [this](const Vm& vm) {
        metrics_.vm_deleted();
        if (images_.vm_left(vm.plan.image_digest)) tasks_.spawn("older images", images_.tidy());
    };
    operations_.on_change = [this](const Operation& operation) {
        if (is_terminal(operation.state)) {
            metrics_.operation_ended(operation);
            core_.operation_ended(operation);
            if (operation.target.type == "vm") index_.touch(operation.target.id);  // it shows with its VM no more
        }
        announcer_.operation(operation);
    };
    connect_core();
    operations_.on_forgotten = [this](const std::string& id) { announcer_.operation_forgotten(id); };
    guests_.ready = [this] { return vms_.ready_for_work(); };
    guests_.on_access = [this](const GuestAccess& access) { announcer_.guest_access(access); };
    drain_.on_change = [this] { announcer_.agent(); };
    tailnet_.on_changed = [this] {
        tailnet_listeners_.follow(tailnet_.state().addresses);
        if (forwards_) forwards_->follow_tailnet(tailnet_.state().addresses);
        core_.addresses_changed();
    };
    s_.server.stream_bodies(api::streams_body);
    s_.server.on_refused([this](net::Method method, unsigned status) { metrics_.refused(method, status); });
    sleep_watch_.before_sleep = [this] { return before_sleep(); };
    sleep_watch_.on_wake = [this](base::Duration slept) { woke(slept); };
    loop_.on_lag = [this](std::chrono::microseconds lag) { metrics_.loop_lag(lag); };
    add_health_checks();
    add_routes();
}

App::~App() { s_.server.on_refused({}); }

std::unique_ptr<ForwardService> App::make_forwards() {
    if (dialer_ == nullptr || s_.ports == nullptr) return nullptr;
    const ForwardService::World world{index_, *dialer_, *s_.ports, s_.clock, s_.log};
    return std::make_unique<ForwardService>(s_.executor, world, forward_settings(config_));
}

asio::awaitable<void> App::start() {
    co_await load_state();
    open_listeners();
    tasks_.spawn("hypervisor", s_.hypervisor.run());
    tasks_.spawn("event log", events_.run());
    tasks_.spawn("events", observer_.follow_events());
    tasks_.spawn("states", observer_.sample_states_forever());
    tasks_.spawn("guests", observer_.sample_guests_forever());
    tasks_.spawn("guests' readiness", observer_.sample_readiness_forever());
    tasks_.spawn("guests' host keys", observer_.sample_host_keys_forever());
    tasks_.spawn("reread", observer_.reread_forever());
    tasks_.spawn("host boot", settle_host_boot());
    tasks_.spawn("orphans", orphans_.watch());
    tasks_.spawn("images", look_after_images());
    tasks_.spawn("refresh", refresh_images_weekly());
    tasks_.spawn("backup", back_up_daily());
    tasks_.spawn("state", tend_state());
    tasks_.spawn("disk watch", disk_watch_.run());
    tasks_.spawn("host load", load_watch_.run());
    tasks_.spawn("resumer", io_resumer_.run());
    tasks_.spawn("missing files", missing_files_.run());
    tasks_.spawn("network", follow_network());
    tasks_.spawn("tailnet", tailnet_.run());
    tasks_.spawn("tailnet's listeners", tailnet_listeners_.run());
    if (forwards_) tasks_.spawn("forwards", forwards_->run());
    tasks_.spawn("guests' clocks", guest_clocks_.run());
    tasks_.spawn("sleep", sleep_watch_.run());
    tasks_.spawn("loop monitor", loop_.run());
    tasks_.spawn("health", watch_health());
    tasks_.spawn("history", operations_.prune_forever());
    tasks_.spawn("readiness", announce_ready());
    core_tasks_.spawn("Ghost Core", link_to_core());
    for (const auto& note : config_.notes) s_.log.warn(note);
    s_.log.info("ghost-agent started", {{"version", GHOST_VERSION}, {"epoch", identity_.epoch}});
}

// Looked at every second, so that `since` tells when something began and not when somebody first asked.
asio::awaitable<void> App::watch_health() {
    auto next_look = s_.clock.now() + host_objects_interval;
    do {
        (void)health_.report(false);
        announcer_.agent();
        core_.look_again();
        // What is wrong with network or pool may have been mended, by others.
        const bool faulty = !network_fault_.empty() || !pool_fault_.empty();
        if (!faulty) next_look = s_.clock.now() + host_objects_interval;
        if (s_.clock.now() < next_look || making_host_objects_ || !observer_.synced()) continue;
        next_look = s_.clock.now() + host_objects_interval;
        making_host_objects_ = true;
        tasks_.spawn("host objects", make_host_objects());
    } while (co_await s_.clock.sleep_for(std::chrono::seconds{1}));
}

asio::awaitable<void> App::load_state() {
    for (const auto& [dir, mode] : {std::pair{disks_dir_, 0711U}, {config_.state_dir + "/consoles", 0711U}})
        if (const auto made = co_await s_.files.make_directories(dir, mode); !made) throw StartFault{made.error()};
    // /run is empty after each boot; systemd makes our part of it, and without systemd we do.
    const auto socket_dir = std::filesystem::path{config_.api.socket}.parent_path().string();
    if (!socket_dir.empty())
        if (const auto made = co_await s_.files.make_directories(socket_dir, 0755); !made)
            throw StartFault{"api.socket: " + made.error().detail};
    if (const auto opened = co_await cache_.open(); !opened) throw StartFault{opened.error()};
    if (const auto measured = co_await disk_watch_.measure(); !measured) throw StartFault{measured.error()};
    const auto state = co_await s_.store.load();
    if (!state) throw StartFault{state.error()};
    if (const auto boot = state->facts.find(std::string{boot_fact}); boot != state->facts.end())
        last_boot_ = boot->second;
    restore_refresh(state->facts);
    drain_.restore(state->facts);
    events_.restore(*state);
    images_.restore(state->images);
    vms_.restore(state->vms);
    const auto unfinished = operations_.restore(state->operations, state->keys);
    co_await images_.settle();
    announcer_.settle_history();
    core_.restore(*state);
    recover(unfinished);
    co_await core_.open();
}

void App::recover(const std::vector<Operation>& unfinished) {
    for (const auto& operation : unfinished) {
        s_.log.warn("an operation was interrupted; going on with it",
                    {{"operation", operation.id}, {"kind", operation.kind}, {"target", operation.target.name}});
        if (operation.kind == guest_exec_kind)
            guests_.recover(operation);
        else if (operation.target.type == "vm")
            vms_.recover(operation);
        else if (operation.target.type == "orphans")
            orphans_.recover(operation);
        else if (operation.target.type == "agent")
            drain_.recover(operation);
        else
            images_.recover(operation);
    }
}

// Network and pool are there when the agent says that it is ready, unless libvirt takes too long over one of them: a
// pool on a dead server may hang for ever, and nothing else waits for it.
asio::awaitable<void> App::settle_host_objects() {
    announcer_.domains_are_read();
    const auto& host = s_.hypervisor.link().host;
    capacity_.set_host(host.cpus, host.memory_mib);
    if (!making_host_objects_) {
        making_host_objects_ = true;
        tasks_.spawn("host objects", make_host_objects());
    }
    const auto patience = s_.clock.now() + host_objects_patience;
    while (making_host_objects_ && !stopping_ && s_.clock.now() < patience)
        co_await host_objects_made_.wait_until(s_.clock, patience);
    if (making_host_objects_ && !stopping_)
        network_fault_ = pool_fault_ = "libvirt is still busy with the network or the storage pool";
}

asio::awaitable<void> App::make_host_objects() {
    const auto network_before = network_fault_;
    const auto pool_before = pool_fault_;
    const auto network = co_await s_.hypervisor.ensure_network(config_.libvirt.network);
    network_fault_ = network ? std::string{} : network.error().detail;
    if (!network && network_fault_ != network_before)
        s_.log.warn("the network is not usable", {{"network", config_.libvirt.network}, {"error", network_fault_}});
    // A pool that isn't there is made over our own directory; one that is says where its volumes go.
    const auto pool = co_await s_.hypervisor.ensure_pool(config_.libvirt.storage_pool, disks_dir_);
    auto pool_fault = pool ? std::string{} : pool.error().detail;
    if (pool && !has_own_pool(config_))
        use_disk_directory(pool->path);
    else if (pool && pool->path != disks_dir_)
        pool_fault =
            fmt::format("the pool {} is at {}, not at {}: it shows other volumes", pool->name, pool->path, disks_dir_);
    pool_fault_ = std::move(pool_fault);
    if (!pool_fault_.empty() && pool_fault_ != pool_before)
        s_.log.warn("the storage pool is not as it should be",
                    {{"pool", config_.libvirt.storage_pool}, {"error", pool_fault_}});
    making_host_objects_ = false;
    host_objects_made_.notify();
}

// An agent's start starts nothing, but for the first after the host's.
asio::awaitable<void> App::settle_host_boot() {
    while (!observer_.synced() && !stopping_) co_await observer_.synced_changed().wait();
    if (stopping_) co_return;
    const auto boot = co_await storage::boot_id(s_.files);
    if (!boot) {
        s_.log.warn("whether the host has booted can't be told", {{"error", boot.error().detail}});
        co_return;
    }
    const auto& id = *boot;
    if (id == last_boot_) co_return;
    if (!last_boot_.empty()) co_await vms_.start_after_boot();
    if (stopping_) co_return;  // the next start goes on with it
    last_boot_ = id;
    storage::Changes changes;
    changes.emplace_back(storage::FactRow{std::string{boot_fact}, id});
    if (const auto kept = co_await s_.store.commit(std::move(changes)); !kept)
        s_.log.error("the host's boot id can't be kept", {{"error", kept.error().detail}});
}

asio::awaitable<void> App::back_up_daily() {
    do {
        const auto age = s_.clock.wall() - base::from_unix_ms(s_.store.health().copied_ms);
        if (age < backup_interval) continue;
        if (const auto done = co_await s_.store.back_up(); !done)
            s_.log.error("the state database can't be copied", {{"error", done.error().detail}});
    } while (co_await s_.clock.sleep_for(std::chrono::hours{1}));
}

// A quiet agent writes nothing, so that a database that couldn't be written, or gave its reserve up, would seem to stay
// so.
asio::awaitable<void> App::tend_state() {
    while (co_await s_.clock.sleep_for(tend_interval)) {
        const auto state = s_.store.health();
        if (state.reserve && state.fault.empty()) continue;
        storage::Changes changes;
        changes.emplace_back(storage::FactRow{std::string{tended_fact}, base::rfc3339(s_.clock.wall())});
        if (const auto done = co_await s_.store.commit(std::move(changes)); !done)
            s_.log.debug("the state database still takes nothing", {{"error", done.error().detail}});
    }
}

void App::use_disk_directory(const std::string& path) {
    disks_dir_ = path;
    vms_.use_disk_directory(path);
    orphans_.use_disk_directory(path);
    disk_watch_.use_directory(path);
}

std::string App::not_ready_because() const {
    if (stopping_) return "stopping";
    const auto ready = vms_.ready_for_work();
    return ready ? "" : ready.error().detail;
}

std::string App::no_new_vms_because() const {
    auto reason = not_ready_because();
    const auto taken = drain_.refusal();
    return reason.empty() && !taken ? taken.error().detail : reason;
}

asio::awaitable<void> App::announce_ready() {
    const auto& manager = s_.service_manager;
    if (!manager.tell) co_return;
    // A hypervisor that is away is no reason to be restarted: reads are served meanwhile.
    while (!observer_.synced() && !stopping_) {
        const auto more = std::chrono::duration_cast<std::chrono::microseconds>(3 * manager.interval);
        manager.tell(fmt::format("EXTEND_TIMEOUT_USEC={}\nSTATUS=Not ready: {}", more.count(), not_ready_because()));
        co_await observer_.synced_changed().wait_until(s_.clock, s_.clock.now() + manager.interval);
    }
    if (stopping_) co_return;
    manager.tell("READY=1\nSTATUS=Serving");
    // Only a loop that turns feeds the watchdog.
    while (co_await s_.clock.sleep_for(manager.interval)) manager.tell("WATCHDOG=1");
}

asio::awaitable<void> App::stop() {
    using namespace asio::experimental::awaitable_operators;
    co_await asio::this_coro::throw_if_cancelled(false);
    stopping_ = true;
    s_.log.info("ghost-agent stops; VMs go on as they are");
    if (s_.service_manager.tell) s_.service_manager.tell("STOPPING=1");
    core_.close();
    operations_.close_intake();
    events_.close();
    images_.close();
    tailnet_listeners_.stop();
    if (forwards_) forwards_->close();
    streams_.close();
    co_await (s_.server.shut_down(request_grace) && leave_core());
    co_await operations_.stop();
    co_await guests_.stop();
    co_await streams_.drain();
    co_await images_.drain();
    tasks_.cancel();
    co_await s_.hypervisor.close(lane_grace);
    co_await tasks_.drain();
    if (forwards_) co_await forwards_->drain();
    co_await s_.store.close();
}

base::Result<net::TlsContext> App::load_tls(const Config& config) {
    const auto& tls = config.api.tls;
    if (!tls.complete()) return nullptr;
    return net::make_server_tls({tls.cert, tls.key, tls.ca});
}

void App::reload(const Reload& fresh) {
    const auto& config = fresh.config;
    s_.log.set_level(config.logging.level);
    config_.logging.level = config.logging.level;
    if (!fresh.tls) {
        s_.log.error("the certificates stay as they are", {{"error", fresh.tls.error().detail}});
    } else if (*fresh.tls != nullptr && (!tls_listeners_.empty() || tailnet_listeners_.serves())) {
        for (auto& listener : tls_listeners_) listener->use_tls(*fresh.tls);
        if (tailnet_listeners_.serves()) tailnet_listeners_.use_tls(*fresh.tls);
        config_.api.tls = config.api.tls;
        config_.grpc.tls = config.grpc.tls;  // where the API's stand when it has none of its own; nothing else reads it
    }
    tasks_.spawn("certificates for Core", core_.reload_files());
    config_.images.catalogue = config.images.catalogue;
    images_.use_catalogue(config.images.catalogue);
    config_.forwards = config.forwards;
    config_.streams.idle_timeout = config.streams.idle_timeout;
    vm_defaults_.forwards = forward_rules(config_);
    if (forwards_) forwards_->use(forward_settings(config_));
    streams_.use_idle_timeout(config.streams.idle_timeout);
    // What was swapped just now is not among what needs a restart.
    for (const auto& key : changed_keys(config_, config))
        s_.log.warn("this setting takes effect after a restart", {{"key", key}});
    s_.log.info("configuration read again");
}

void App::add_routes() {
    api::add_vm_routes(router_, vms_, events_, answers_, vm_defaults_);
    api::add_guest_routes(router_, guests_, answers_);
    api::add_operation_routes(router_, events_, answers_);
    api::add_image_routes(router_, images_, events_, answers_);
    api::add_root_routes(router_, answers_, capacity_, load_watch_);
    api::add_agent_routes(router_, drain_, answers_);
    api::add_event_routes(router_, events_, s_.clock);
    api::add_stream_routes(router_, streams_);
    api::add_orphan_routes(router_, orphans_, answers_);
    api::add_health_routes(router_, health_, [this] { return no_new_vms_because(); }, config_.health.path);
    api::add_openapi_route(router_);
    api_ = api::make_gate({.router = router_,
                           .idempotency = idempotency_,
                           .clock = s_.clock,
                           .log = s_.log,
                           .health_path = config_.health.path,
                           .draining = [this] { return stopping_; },
                           .measure = [this](net::Method method, std::string_view route, unsigned status,
                                             base::Duration took) { metrics_.request(method, route, status, took); }});
}

}  // namespace ghost::agent
