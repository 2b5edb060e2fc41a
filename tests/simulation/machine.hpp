// One host in memory and the agent's lives on it, on one thread and virtual time.
#pragma once

#include "agent/app.hpp"
#include "fakes/crash_disk.hpp"
#include "fakes/fake_core.hpp"
#include "fakes/fake_hypervisor.hpp"
#include "fakes/fake_processes.hpp"
#include "fakes/fake_web.hpp"
#include "fakes/memory_core_link.hpp"
#include "fakes/memory_files.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/virtual_clock.hpp"
#include "simulation/dice.hpp"
#include "simulation/trace.hpp"
#include "simulation/wire.hpp"

#include <boost/asio/io_context.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ghost::simulation {

// Disks, database, hypervisor and Ghost Core outlive an agent. What goes wrong with it beyond the rules is told to the
// trace.
class Machine {
public:
    enum class State : std::uint8_t { down, starting, up, stopping };
    enum class Death : std::uint8_t { kill, power_loss };

    Machine(Dice& dice, Trace& trace);
    ~Machine();
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    [[nodiscard]] State state() const noexcept { return state_; }
    // Of a machine that is down. A start takes turns, and may fail.
    void boot();
    // Of an agent that is up: as SIGTERM does. Takes turns and time.
    void stop();
    // At once: nothing of what the agent was about is finished or undone.
    void crash(Death how);
    // In the middle of the n-th change of the database's files from now.
    void crash_in_commit(unsigned n, Death how);

    // Runs one handler; false: there was none.
    bool turn();
    // Runs until nothing is ready; time stands still.
    void settle();
    // Lets time pass, and what wakes in it run.
    void pass(base::Duration span);

    // Of an agent that is up.
    Wire::Ptr send(net::Request request, Ear ear);
    void hang_up(const Wire::Ptr& call) { wire_->hang_up(call); }
    // The answer to a GET, of a machine that is up and well; parsed.
    [[nodiscard]] std::optional<net::Response> get(const std::string& target);
    [[nodiscard]] agent::App& app() { return *app_; }
    [[nodiscard]] storage::StateStore& store() { return *store_; }

    Dice& dice;
    Trace& trace;
    boost::asio::io_context loop{1};
    fakes::VirtualClock clock;
    fakes::SeededRandom random;
    std::vector<std::string> errors;  // lines of level error that living agents logged
    base::Log log;
    fakes::MemoryFiles files;
    fakes::FakeProcesses processes;
    fakes::CrashDisk disk{clock};
    fakes::FakeHypervisor hypervisor{loop, clock};
    fakes::FakeWeb web;
    fakes::SeededRandom core_random;
    fakes::FakeCore core;
    fakes::MemoryCoreLink way{core, clock};
    // When nothing is ready at a moment, before time goes on.
    std::function<void()> on_pause;

    static constexpr const char* state_dir = "/var/lib/ghost";
    static constexpr const char* agent_id = "den";  // for Core
    // The catalogue has one image.
    static constexpr const char* vendors_image = "vendors";
    static constexpr const char* vendors_url = "https://vendor.example/image.qcow2";
    static constexpr const char* vendors_mirror = "https://mirror.example/image.qcow2";
    static constexpr const char* vendors_list = "https://vendor.example/SHA256SUMS";

private:
    class Sink;
    std::vector<std::unique_ptr<base::LogSink>> make_sinks();
    void watch();
    void bury();
    void lose_disk(Death how);
    void name_host_boot();
    void join_core();
    [[nodiscard]] heartbeat::Identity next_identity();
    void drive(const char* what, const std::function<bool()>& done);
    [[nodiscard]] bool dead() const { return dying_ || disk.stopped(); }

    State state_ = State::down;
    unsigned host_boots_ = 0;
    std::uint64_t handlers_ = 0;
    bool dying_ = false;
    bool processes_off_ = false;
    bool start_over_ = false;
    std::string start_fault_;
    bool stop_begun_ = false;
    bool stop_over_ = false;
    Death death_in_commit_ = Death::kill;
    std::unique_ptr<storage::StateStore> store_;
    std::unique_ptr<Wire> wire_;
    std::unique_ptr<agent::App> app_;
};

}  // namespace ghost::simulation
