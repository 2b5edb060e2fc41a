#include "simulation/machine.hpp"

#include "fakes/certificates.hpp"
#include "storage/sqlite_store.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <exception>
#include <utility>

namespace ghost::simulation {
namespace asio = boost::asio;
namespace {

constexpr std::uint64_t most_handlers = 2'000'000;  // of one schedule: more is a loop without an end
constexpr base::Duration longest_end = std::chrono::minutes{5};

const agent::Config& config() {
    static const auto made = [] {
        agent::Config c;
        c.state_dir = Machine::state_dir;
        c.agent.api_url = "https://core.example";
        c.agent.name = "den";
        c.api.listen_addr = {};
        c.metrics.enabled = false;
        c.resources.reserved_disk_gb = 1;
        c.images.cache_max = 700'000;
        agent::CatalogueImage entry;
        entry.name = Machine::vendors_image;
        entry.architecture = "x86_64";
        entry.url = Machine::vendors_url;
        entry.mirrors = {Machine::vendors_mirror};
        entry.checksums = Machine::vendors_list;
        c.images.catalogue.emplace(entry.name, entry);
        return c;
    }();
    return made;
}

// Made once, and as long each time: the machine's disk is measured.
const fakes::Identity& certified() {
    static const auto made = [] {
        constexpr long years = 365L * 24 * 3600;
        fakes::CertificateAuthority ca{"Core's CA"};
        // Its half-life is in no schedule.
        auto identity =
            ca.issue({.common_name = Machine::agent_id, .valid_from_s = -20 * years, .valid_until_s = 40 * years});
        constexpr std::size_t length = 2048;
        identity.certificate.resize(std::max(length, identity.certificate.size()), '\n');
        return identity;
    }();
    return made;
}

fakes::FakeCore::Settings core_settings() {
    return {.ttl_s = 20, .grace_s = 60, .full_sync_every_s = 300, .known_by_certificate = true};
}

}  // namespace

class Machine::Sink final : public base::LogSink {
public:
    explicit Sink(Machine& machine) : machine_(machine) {}
    void write(const base::Record& record) override {
        machine_.trace("  {}{}: {}", machine_.dead() ? "(dead) " : "", base::name_of(record.level),
                       base::message_with_fields(record));
        if (record.level == base::Level::error && !machine_.dead())
            machine_.errors.push_back(base::message_with_fields(record));
    }
    void flush() override {}

private:
    Machine& machine_;
};

std::vector<std::unique_ptr<base::LogSink>> Machine::make_sinks() {
    std::vector<std::unique_ptr<base::LogSink>> sinks;
    sinks.push_back(std::make_unique<Sink>(*this));
    return sinks;
}

Machine::Machine(Dice& d, Trace& t)
    : dice(d),
      trace(t),
      random(d.next()),
      log(t.on() ? base::Level::info : base::Level::error, make_sinks(), base::Log::Writer::caller),
      core_random(d.next()),
      core(
          clock, core_random,
          [this](const auto&, const auto&, auto) {
              return std::optional{fakes::FakeCore::Issued{certified().certificate, clock.wall()}};
          },
          core_settings()) {
    files.put_directory(state_dir);
    join_core();
    name_host_boot();
    auto qemu = fakes::fake_qemu_img(files);
    processes.set_answer([this, qemu = std::move(qemu)](const std::vector<std::string>& argv) {
        if (processes_off_) return base::Result<base::Exit>{base::fail(base::Errc::io_error, "the machine is off")};
        return qemu(argv);
    });
    hypervisor.on_started = [this](const virt::DomainSpec& spec) {
        files.put(spec.console_log, "booting\n", 0600);
        files.put(spec.console_socket, "", 0775);  // and its host is of those whose power fails: it stays
    };
}

Machine::~Machine() { assert(state_ == State::down && "crash() it before those go who hear of its connections"); }

void Machine::boot() {
    files.power_on();
    const auto identity = next_identity();
    trace("boot {}", identity.epoch);
    processes_off_ = false;
    hypervisor.reconnect();
    auto opened = storage::open_sqlite_store(std::string{state_dir} + "/state.db", log,
                                             {.clock = &clock, .files = &disk, .exclusive = true, .inline_jobs = true});
    if (!opened) {
        trace("the database can't be opened: {}", opened.error().detail);
        files.crash(dice);
        hypervisor.hang_up();
        if (disk.stopped()) lose_disk(death_in_commit_);
        return;
    }
    store_ = std::move(*opened);
    wire_ = std::make_unique<Wire>(loop, clock);
    wire_->dead = [this] { return dead(); };
    wire_->escaped = [this](const std::string& what) { trace.violated("an exception escaped a handler: {}", what); };
    app_ = std::make_unique<agent::App>(config(), identity,
                                        agent::Seams{.executor = loop.get_executor(),
                                                     .clock = clock,
                                                     .random = random,
                                                     .log = log,
                                                     .processes = processes,
                                                     .files = files,
                                                     .store = *store_,
                                                     .hypervisor = hypervisor,
                                                     .server = *wire_,
                                                     .web = web,
                                                     .core = &way});
    start_over_ = stop_begun_ = stop_over_ = false;
    start_fault_.clear();
    state_ = State::starting;
    asio::co_spawn(loop, app_->start(), [this](const std::exception_ptr& error) {
        start_over_ = true;
        if (!error) return;
        try {
            std::rethrow_exception(error);
        } catch (const std::exception& e) {
            start_fault_ = e.what();
        }
    });
}

// As if it had enrolled before.
void Machine::join_core() {
    const std::string base = state_dir;
    files.put(base + "/core/key.pem", certified().key, 0600);
    files.put(base + "/core/cert.pem", certified().certificate);
    files.put(base + "/identity.json", heartbeat::to_text({"019b7c5f-0000-7000-8000-00000000da7a", agent_id, 0}), 0600);
    core.add_agent(agent_id);
    way.shown = agent_id;
    way.dead = [this] { return dead(); };
    way.served = [this](const heartbeat::CoreCall& call, const fakes::FakeCore::Served& served) {
        // Keys, signatures and what follows from them are others each time.
        if (!trace.on() || call.call == heartbeat::Call::renew) return;
        trace("  Core is told {}: {} {}", heartbeat::name_of(call.call), boost::json::serialize(call.body),
              served.response ? fmt::format("{} {}", served.response->status, served.response->body) : "nothing");
    };
}

heartbeat::Identity Machine::next_identity() {
    const auto path = std::string{state_dir} + "/identity.json";
    auto identity = heartbeat::next_identity(files.find(path)->bytes, clock, random).value();
    files.put(path, heartbeat::to_text(identity), 0600);
    return identity;
}

void Machine::stop() {
    trace("stop");
    state_ = State::stopping;
    stop_begun_ = true;
    asio::co_spawn(loop, app_->stop(), [this](const std::exception_ptr& error) {
        if (error && !dead()) trace.violated("an exception escaped stop()");
        stop_over_ = true;
    });
}

void Machine::crash(Death how) {
    if (dying_ || state_ == State::down) {
        if (state_ == State::down && how == Death::power_loss) {
            trace("power loss of a machine without an agent");
            lose_disk(how);
        }
        return;
    }
    trace("{}", how == Death::kill ? "kill -9" : "power loss");
    dying_ = true;
    wire_->cut_all();
    files.crash(dice);
    processes_off_ = true;
    hypervisor.hang_up();
    disk.stop_at(1);
    bury();
    lose_disk(how);
    dying_ = false;
    trace("it is gone");
}

void Machine::lose_disk(Death how) {
    if (how == Death::kill) return disk.kill();
    disk.crash(dice);
    hypervisor.reboot_host();
    name_host_boot();
}

void Machine::name_host_boot() {
    files.put("/proc/sys/kernel/random/boot_id", fmt::format("boot-{}\n", ++host_boots_), 0444);
}

void Machine::crash_in_commit(unsigned n, Death how) {
    trace("{} at the database's change {}", how == Death::kill ? "kill -9" : "power loss", n);
    death_in_commit_ = how;
    disk.stop_at(n);
}

// The coroutines of an agent that is dead have to end before it can be destroyed; nothing they do has an effect.
void Machine::bury() {
    drive("start()", [this] { return start_over_; });
    if (!stop_begun_) {
        stop_begun_ = true;
        asio::co_spawn(loop, app_->stop(), [this](const std::exception_ptr&) { stop_over_ = true; });
    }
    drive("stop()", [this] { return stop_over_ && wire_->connections() == 0; });
    app_.reset();
    store_.reset();
    while (turn()) {
    }
    wire_.reset();
    state_ = State::down;
}

void Machine::drive(const char* what, const std::function<bool()>& done) {
    const auto limit = clock.now() + longest_end;
    while (!done()) {
        if (turn()) continue;
        const auto next = clock.next();
        if (next && *next < limit) {
            clock.advance(std::max(*next - clock.now(), base::Duration::zero()));
            continue;
        }
        // Nothing can be destroyed now, so nothing can go on.
        fmt::print(stderr, "{} of a dying agent has no end ({} connections)\n", what, wire_->connections());
        std::abort();
    }
}

bool Machine::turn() {
    loop.restart();
    if (loop.poll_one() == 0) return false;
    if (++handlers_ > most_handlers && !dying_) trace.violated("handlers without an end");
    if (!dying_) watch();
    return true;
}

void Machine::watch() {
    if (state_ == State::down) return;
    if (disk.stopped()) return crash(death_in_commit_);
    if (state_ == State::starting && start_over_) {
        if (start_fault_.empty()) {
            trace("it is up");
            state_ = State::up;
            return;
        }
        trace("it can't start: {}", start_fault_);
        crash(Death::kill);  // it leaves at once
    }
    if (state_ == State::stopping && stop_over_ && wire_->connections() == 0) {
        dying_ = true;
        bury();
        disk.kill();
        hypervisor.hang_up();
        dying_ = false;
        trace("it has stopped");
    }
}

void Machine::settle() {
    while (handlers_ < most_handlers && turn()) {
    }
}

void Machine::pass(base::Duration span) {
    const auto end = clock.now() + span;
    settle();
    while (trace.sound() && clock.now() < end) {
        if (on_pause) on_pause();
        const auto next = clock.next();
        clock.advance(std::max((next ? std::min(*next, end) : end) - clock.now(), base::Duration::zero()));
        settle();
    }
}

Wire::Ptr Machine::send(net::Request request, Ear ear) {
    return wire_->send(app_->api(), std::move(request), std::move(ear));
}

std::optional<net::Response> Machine::get(const std::string& target) {
    net::Request request;
    auto parsed = net::parse_target(target);
    request.path = parsed->path;
    request.query = parsed->query;
    request.context = {"check", "", {base::Principal::Kind::socket, "uid:0", true}};
    const auto answer = std::make_shared<std::optional<net::Response>>();
    send(std::move(request), {[answer](const net::Response& r) { *answer = r; }, [](const std::string&) {}, [] {}});
    settle();
    return *answer;
}

}  // namespace ghost::simulation
