// A hypervisor in memory, with faults a test can switch on.
//
// It keeps the contract of virt/hypervisor.hpp: every call suspends at least
// once, events come after the call that caused them, an obeyed shutdown comes
// later than its request. It never waits for real time: a hung change calls
// `stalled` at once and stays until released; a hung read ends with
// deadline_exceeded after `read_deadline` of the clock it was given.
//
// Calls are named as the methods are: "start", "define", "ensure_network", ...
#pragma once

#include "base/clock.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::fakes {

// Lives on one loop, as the real one does.
class FakeHypervisor final : public virt::Hypervisor {
public:
    static constexpr std::size_t event_limit = 1024;
    static constexpr std::size_t always = static_cast<std::size_t>(-1);

    FakeHypervisor(boost::asio::io_context& context, base::Clock& clock);
    ~FakeHypervisor() override;
    FakeHypervisor(const FakeHypervisor&) = delete;
    FakeHypervisor& operator=(const FakeHypervisor&) = delete;

    // ---- Faults

    enum class When : std::uint8_t {
        before_effect,  // nothing was done
        after_effect,   // it was done, and the caller is told otherwise
    };
    // The next `times` calls of `call` fail with `error`.
    void fail(std::string call, base::Error error, std::size_t times = 1, When when = When::before_effect);
    // Calls of `call` fail no more, whatever fail() said.
    void heal(std::string_view call);
    // Calls of `call` hang from now on, until release(call). A change whose waiter is cancelled meanwhile still takes
    // effect at its release, as a real one would. "usage UUID", "run_in_guest UUID", "console UUID",
    // "open_guest_file UUID" and so on are the reading calls, and those to the guest agent, of one domain; fail() takes
    // these names, too.
    void hang(std::string call);
    void release(std::string_view call);
    // What the reading `call` finds from now on reaches its caller only after `delay`, when it may be old; zero ends
    // it.
    void answer_late(std::string call, base::Duration delay) { late_[std::move(call)] = delay; }
    [[nodiscard]] std::size_t hung() const noexcept { return waiting_.size(); }
    base::Duration read_deadline = std::chrono::seconds{5};
    // How long a change takes until it has its effect, and then until its answer; asked at each. Empty: no time.
    struct Latency {
        base::Duration before{};
        base::Duration after{};
    };
    std::function<Latency(std::string_view call)> latency;

    // While the link is down every call fails with hypervisor_unavailable and no event comes; changes that hang or are
    // slow fail so, too, and what hangs still takes effect at its release. Idempotent. run() brings the link up unless
    // it was dropped before.
    void drop_link(std::string reason);
    void restore_link();
    // The agent's process is gone: its calls change nothing any more but for those that hang, which take effect at
    // their release. Until reconnect(), for the next agent.
    void hang_up();
    void reconnect();
    // The host's power failed and came back: nothing hangs, and what ran is off.
    void reboot_host();
    // Whether every lane for changes is overdue.
    void open_breaker(bool on) { breaker_open_ = on; }
    // From now on events are swallowed (true) or delivered again (false); what was swallowed never comes.
    void lose_events(bool on) { losing_events_ = on; }
    void emit(virt::Event event);

    // ---- The guests and the world around the agent

    enum class Shutdown : std::uint8_t { obey, ignore };
    void on_shutdown(std::string uuid, Shutdown how);  // default: obey
    void guest_powers_off(const std::string& uuid);
    void guest_crashes(const std::string& uuid);
    void set_power(const std::string& uuid, virt::Power power, std::string reason);
    void set_addresses(std::string uuid, std::vector<std::string> leases, std::vector<std::string> from_guest = {});
    void set_usage(std::string uuid, virt::DomainUsage usage);
    // Where that domain's console is while it runs; without it there is none.
    void set_console(std::string uuid, virt::ConsoleDevice device);
    // Makes a connection to that domain's display while it runs, at each open_display(); without it there is none.
    void set_display(std::string uuid, std::function<base::Descriptor()> connect);
    void set_screenshot(std::string uuid, virt::Picture picture);  // without it: no display
    // What each program run in that guest comes to, once it runs; without it the guest has no agent.
    void set_guest_run(std::string uuid, virt::GuestRun run);
    // When set: what it returns is what each program comes to, in every guest that runs but those that set_guest_run()
    // says have no agent. It may change guest_files().
    std::function<virt::GuestRun(const std::string& uuid, const virt::GuestCommand& command)> on_guest_run;
    // By path. There to be opened by the guest's agent if it has one.
    [[nodiscard]] std::map<std::string, std::string>& guest_files(const std::string& uuid) {
        return guest_files_[uuid];
    }
    // A domain somebody else defined, or one of ours from an earlier life.
    void put(virt::DomainInfo domain);
    // A domain somebody else undefined behind the agent's back.
    void vanish(const std::string& uuid);
    void put_network(virt::NetworkInfo network);
    void put_pool(virt::PoolInfo pool);
    // A disk that a domain runs with and isn't defined with: plugged in, or a copy under way.
    void put_live_disk(virt::DiskFile file) { live_disks_.push_back(std::move(file)); }
    // Called with the spec of each domain that is started.
    std::function<void(const virt::DomainSpec&)> on_started;
    virt::HostInfo host{"test:///fake", "test", "", "9.0.0", "", "x86_64", 8, 16 * 1024};

    // ---- What happened

    [[nodiscard]] const std::map<std::string, virt::DomainInfo>& all() const noexcept { return domains_; }
    [[nodiscard]] const virt::DomainInfo* find(const std::string& uuid) const;
    // The spec `uuid` was last defined with; null when put() made it.
    [[nodiscard]] const virt::DomainSpec* spec_of(const std::string& uuid) const;
    // What the guest's clock was set to, each time.
    [[nodiscard]] std::vector<base::Wall> guest_times(const std::string& uuid) const;
    // Handles that were opened and not closed since the guest was started.
    [[nodiscard]] std::size_t open_guest_files(const std::string& uuid) const;
    // How often `call` was made, failed ones and hung ones too.
    [[nodiscard]] std::size_t count(std::string_view call) const;

    // ---- virt::Hypervisor

    [[nodiscard]] boost::asio::awaitable<void> run() override;
    [[nodiscard]] boost::asio::awaitable<void> close(std::chrono::milliseconds grace) override;
    [[nodiscard]] const virt::Link& link() const override { return link_; }
    [[nodiscard]] boost::asio::awaitable<virt::Event> next_event() override;
    [[nodiscard]] std::vector<virt::LaneStats> lanes() const override;

    [[nodiscard]] Task<std::vector<virt::DomainInfo>> domains() override;
    [[nodiscard]] Task<virt::DomainInfo> domain(std::string uuid) override;
    [[nodiscard]] Task<std::vector<virt::DomainState>> states() override;
    [[nodiscard]] Task<std::vector<virt::DiskFile>> disk_files() override;
    [[nodiscard]] Task<virt::DomainUsage> usage(std::string uuid) override;
    [[nodiscard]] Task<virt::Addresses> addresses(std::string uuid, bool ask_guest) override;
    [[nodiscard]] Task<virt::ConsoleDevice> console(std::string uuid) override;
    [[nodiscard]] Task<base::Descriptor> open_display(std::string uuid) override;
    [[nodiscard]] Task<virt::Picture> screenshot(std::string uuid) override;
    [[nodiscard]] Task<virt::GuestRun> run_in_guest(std::string uuid, virt::GuestCommand command) override;
    [[nodiscard]] Task<std::int64_t> open_guest_file(std::string uuid, std::string path,
                                                     virt::GuestFileMode mode) override;
    [[nodiscard]] Task<virt::GuestPiece> read_guest_file(std::string uuid, std::int64_t handle) override;
    [[nodiscard]] Task<void> write_guest_file(std::string uuid, std::int64_t handle, std::string bytes) override;
    [[nodiscard]] Task<void> close_guest_file(std::string uuid, std::int64_t handle) override;
    [[nodiscard]] Task<void> set_guest_time(std::string uuid, base::Wall now) override;

    [[nodiscard]] Task<void> define(virt::DomainSpec spec, Stalled stalled) override;
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

    [[nodiscard]] Task<virt::NetworkInfo> ensure_network(std::string name, Stalled stalled = {}) override;
    [[nodiscard]] Task<virt::PoolInfo> ensure_pool(std::string name, std::string create_at) override;

private:
    using Effect = std::function<base::Result<void>()>;
    using DomainEffect = std::function<base::Result<void>(virt::DomainInfo&)>;
    struct Fault {
        base::Error error;
        std::size_t times = 0;
        When when = When::before_effect;
    };
    // A hung change: its coroutine waits on `gate`.
    struct Waiting {
        Waiting(std::string c, std::string domain, boost::asio::io_context& context)
            : call(std::move(c)), uuid(std::move(domain)), gate(context, base::Instant::max()) {}
        std::string call;
        std::string uuid;  // empty: not a domain's
        boost::asio::steady_timer gate;
        bool released = false;
        bool cut = false;  // its connection is gone
    };

    struct GuestHandle {
        std::string uuid;
        std::string path;
        virt::GuestFileMode mode = virt::GuestFileMode::read;
        std::size_t at = 0;
    };

    // The first half of every call: suspends, counts, and fails as told.
    [[nodiscard]] Task<void> enter(std::string call);
    [[nodiscard]] Task<void> enter_read(std::string call, std::string uuid = {});
    [[nodiscard]] boost::asio::awaitable<void> leave_read(std::string_view call);
    // What becomes of a hung change's effect when its waiter is gone: it comes at the release, or never.
    enum class Late : std::uint8_t { comes, lost };
    [[nodiscard]] Task<void> change(std::string call, Stalled stalled, Effect effect, Late late = Late::comes,
                                    std::string uuid = {});
    [[nodiscard]] Task<void> change_domain(std::string call, std::string uuid, Stalled stalled, DomainEffect effect);
    [[nodiscard]] base::Result<void> take_fault(const std::string& call, When when);
    [[nodiscard]] base::Result<void> add(const virt::DomainSpec& spec);
    void stop(virt::DomainInfo& domain, virt::Power power, std::string reason);
    void match_live(virt::DomainInfo& domain) const;
    void tell(const std::string& uuid, std::string what);
    void cut_waiting();
    [[nodiscard]] std::unexpected<base::Error> link_is_down() const;
    // A domain that runs or is paused.
    [[nodiscard]] base::Result<const virt::DomainInfo*> live(const std::string& uuid) const;
    [[nodiscard]] Task<const virt::DomainInfo*> enter_live(const char* call, const std::string& uuid);
    [[nodiscard]] bool has_agent(const std::string& uuid) const;
    [[nodiscard]] base::Result<void> agent_answers(const std::string& uuid) const;
    [[nodiscard]] GuestHandle* guest_handle(const std::string& uuid, std::int64_t handle, virt::GuestFileMode mode);
    void forget_guest_handles(const std::string& uuid);

    boost::asio::io_context& context_;
    base::Clock& clock_;
    virt::Link link_;
    bool dropped_ = false;
    bool closed_ = false;
    bool gone_ = false;             // nobody is connected: hang_up()
    std::uint64_t connection_ = 0;  // which one; calls of an earlier one come to nothing
    bool losing_events_ = false;
    bool breaker_open_ = false;
    std::deque<virt::Event> events_;
    boost::asio::steady_timer event_;
    std::map<std::string, virt::DomainInfo> domains_;
    std::map<std::string, virt::DomainSpec> specs_;
    std::map<std::string, Shutdown> shutdown_;
    std::map<std::string, std::pair<std::vector<std::string>, std::vector<std::string>>> addresses_;
    std::map<std::string, virt::DomainUsage> usage_;
    std::map<std::string, virt::GuestRun> guest_runs_;
    std::map<std::string, std::vector<base::Wall>> guest_times_;
    std::map<std::string, std::map<std::string, std::string>> guest_files_;  // by domain and path
    std::map<std::int64_t, GuestHandle> guest_handles_;
    std::int64_t next_guest_handle_ = 1000;
    std::map<std::string, virt::ConsoleDevice> consoles_;
    std::map<std::string, std::function<base::Descriptor()>> displays_;
    std::map<std::string, virt::Picture> screenshots_;
    std::vector<virt::DiskFile> live_disks_;
    std::map<std::string, std::size_t> aborts_;  // of a domain's jobs
    std::map<std::string, virt::NetworkInfo> networks_;
    std::map<std::string, virt::PoolInfo> pools_;
    std::map<std::string, Fault, std::less<>> faults_;
    std::map<std::string, std::size_t, std::less<>> counts_;
    std::set<std::string, std::less<>> hanging_;
    std::map<std::string, base::Duration, std::less<>> late_;
    std::list<std::shared_ptr<Waiting>> waiting_;
    std::vector<std::pair<std::string, Effect>> orphaned_;  // changes whose waiter left while they hung
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace ghost::fakes
