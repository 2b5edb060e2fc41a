#include "agent/daemon.hpp"

#include "agent/app.hpp"
#include "agent/config/config_loader.hpp"
#include "agent/service_notify.hpp"
#include "agent/state_directory.hpp"
#include "base/ids.hpp"
#include "heartbeat/https_core.hpp"
#include "net/local_addresses.hpp"
#include "storage/local_files.hpp"
#include "storage/sqlite_store.hpp"
#include "storage/worker_pool.hpp"
#include "virt/libvirt_hypervisor.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <system_error>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::seconds settle{2};  // for libvirt's late releases after everything is closed

std::vector<std::unique_ptr<base::LogSink>> make_sinks(const Config& config) {
    const auto& logging = config.logging;
    using Output = decltype(logging.output);
    std::vector<std::unique_ptr<base::LogSink>> sinks;
    if (logging.output != Output::file)
        sinks.push_back(base::stderr_is_journal() ? base::make_journal_sink()
                                                  : base::make_stream_sink(STDOUT_FILENO, logging.format));
    if (logging.output == Output::stdout_) return sinks;
    // systemd makes /var/log/ghost; without systemd we do.
    std::error_code not_made;
    std::filesystem::create_directory(std::filesystem::path{logging.file}.parent_path(), not_made);
    try {
        sinks.push_back(base::make_file_sink(logging.file, logging.format, logging.max_size, logging.max_age));
    } catch (const std::system_error& fault) {
        throw StartFault{fmt::format("logging.file: {}", fault.what())};
    }
    return sinks;
}

// Connections, watches and children need descriptors: as many as we are allowed.
void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

// What start-up needs before there is a loop.
struct Ground {
    StateDirectory directory;
    heartbeat::Identity identity;
    std::unique_ptr<storage::StateStore> store;
};

// What passes without anybody's doing is tried again by the service manager; the rest would only fail again.
int exit_code_of(const StartFault& fault) { return fault.passes() ? exit_failure : exit_config; }

Ground open_ground(const Config& config, const base::Clock& clock, base::Random& random, base::Log& log) {
    auto directory = StateDirectory::open(config.state_dir);
    if (!directory) throw StartFault{directory.error()};
    auto identity = directory->next_identity(clock, random);
    if (!identity) throw StartFault{identity.error()};
    auto store = storage::open_sqlite_store(config.state_dir + "/state.db", log);
    if (!store) throw StartFault{store.error()};
    return {std::move(*directory), std::move(*identity), std::move(*store)};
}

// Waits for the signals that steer us; returns when it is time to go.
asio::awaitable<void> obey_signals(asio::signal_set& signals, App& app, const ReadConfig& read_again) {
    storage::WorkerPool reader{"config", 1};  // files may be slow to read, and the loop waits for none
    for (;;) {
        const auto [ec, number] = co_await signals.async_wait(asio::as_tuple(asio::use_awaitable));
        if (ec || number != SIGHUP) co_return;
        const auto fresh = co_await reader.run([&read_again]() -> base::Result<std::optional<Reload>> {
            auto config = read_again();
            if (!config) return std::nullopt;
            auto tls = App::load_tls(*config);
            return Reload{*std::move(config), std::move(tls)};
        });
        if (fresh && *fresh) app.reload(**fresh);
    }
}

// A second signal while we stop: nothing more is waited for. VMs and the journal are safe at any moment.
asio::awaitable<void> leave_at_once(asio::signal_set& signals, base::Log& log) {
    int number = SIGHUP;
    while (number == SIGHUP) {
        const auto [ec, got] = co_await signals.async_wait(asio::as_tuple(asio::use_awaitable));
        if (ec) co_return;
        number = got;
    }
    log.warn("second signal: leaving at once");
    log.flush();
    ::_exit(exit_failure);
}

asio::awaitable<void> live(App& app, asio::signal_set& signals, const ReadConfig& read_again, base::Log& log) {
    const auto executor = co_await asio::this_coro::executor;
    co_await app.start();
    co_await obey_signals(signals, app, read_again);
    asio::co_spawn(executor, leave_at_once(signals, log), [](const std::exception_ptr&) {});
    co_await app.stop();
    signals.cancel();
}

// What images are fetched with.
std::unique_ptr<net::Web> make_web(const Config& config) {
    auto tls = net::make_web_tls(config.images.tls_ca);
    if (!tls) throw StartFault{fmt::format("images.tls_ca: {}", tls.error().detail)};
    const auto environment = process_environment();
    auto proxy = net::proxy_from_environment([&environment](const std::string& name) {
        const auto it = environment.find(name);
        return it == environment.end() ? std::nullopt : std::optional{it->second};
    });
    if (!proxy) throw StartFault{proxy.error()};
    return net::make_web({std::move(*tls), config.images.allow_private_addresses, std::move(*proxy)});
}

net::ServerLimits server_limits(const Config& config) {
    net::ServerLimits limits;
    limits.websockets_per_identity = static_cast<std::size_t>(config.streams.per_identity);
    return limits;
}

int serve(const Config& config, const ReadConfig& read_again, base::Log& log) {
    asio::io_context loop{1};
    base::SystemClock clock;
    base::SystemRandom random;
    asio::signal_set signals{loop, SIGTERM, SIGINT, SIGHUP};
    std::signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();

    auto ground = open_ground(config, clock, random, log);
    base::ChildProcesses processes;
    storage::LocalFiles files;
    virt::LibvirtHypervisor hypervisor{
        loop, config.libvirt.uri, clock, random, log, {.virt_type = config.libvirt.virt_type}};
    const auto web = make_web(config);
    heartbeat::HttpsCore core;
    const auto network = net::make_network_watch(loop.get_executor());
    if (!network) log.warn("changes of the network aren't noticed", {{"error", network.error().detail}});
    const auto tailscaled = config.tailscale.socket.empty() ? std::unique_ptr<net::Client>{}
                                                            : net::make_client(net::UnixPeer{config.tailscale.socket});
    const auto server =
        net::make_http_server(loop.get_executor(), server_limits(config), log,
                              {.request_id = [&clock, &random] { return base::make_uuid(clock, random); },
                               .traceparent = [&random] { return base::make_traceparent(random); }});
    const auto ports = make_local_ports(loop.get_executor(), files);
    const auto logind = make_logind(loop.get_executor());
    App app{config,
            std::move(ground.identity),
            {.executor = loop.get_executor(),
             .clock = clock,
             .random = random,
             .log = log,
             .processes = processes,
             .files = files,
             .store = *ground.store,
             .hypervisor = hypervisor,
             .server = *server,
             .web = *web,
             .service_manager = make_service_manager(),
             .core = &core,
             .local_addresses = [] { return net::local_addresses(); },
             .tailscaled = tailscaled.get(),
             .network = network ? network->get() : nullptr,
             .make_dialer = make_guest_dialer,
             .ports = ports.get(),
             .logind = logind.get()}};

    std::exception_ptr fault;
    bool ended = false;
    asio::co_spawn(loop, live(app, signals, read_again, log), [&](const std::exception_ptr& error) {
        fault = error;
        ended = true;
        if (error) loop.stop();
    });
    while (!ended) loop.run_one();
    if (fault) {
        // Half started: listeners may be open and tasks running. Nothing has been changed that a restart doesn't mend.
        try {
            std::rethrow_exception(fault);
        } catch (const StartFault& e) {
            log.flush();
            fmt::print(stderr, "ghost-agent: {}\n", e.what());
            ::_exit(exit_code_of(e));
        }
    }
    const auto until = clock.now() + settle;
    while (hypervisor.live_watches() > 0 && clock.now() < until) loop.run_one_until(until);
    loop.poll();
    log.info("ghost-agent stopped");
    return exit_ok;
}

}  // namespace

int run_daemon(const Config& config, const ReadConfig& read_again) {
    try {
        base::Log log{config.logging.level, make_sinks(config)};
        return serve(config, read_again, log);
    } catch (const StartFault& fault) {
        fmt::print(stderr, "ghost-agent: {}\n", fault.what());
        return exit_code_of(fault);
    } catch (const std::system_error& error) {
        fmt::print(stderr, "ghost-agent: {}\n", error.what());
        return exit_failure;  // of threads or descriptors, which there may be again
    }
}

}  // namespace ghost::agent
