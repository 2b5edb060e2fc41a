#include "tests/fakes/fake_hypervisor.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <utility>

namespace ghost::fakes {
namespace {

using base::Errc;
using base::Result;
using boost::asio::awaitable;
using virt::DomainInfo;
using virt::Power;

constexpr auto as_values = boost::asio::as_tuple(boost::asio::use_awaitable);

std::unexpected<base::Error> no_domain(const std::string& uuid) {
    return base::fail(Errc::not_found, "no domain with uuid " + uuid);
}

}  // namespace

FakeHypervisor::FakeHypervisor(boost::asio::io_context& context, base::Clock& clock)
    : context_(context), clock_(clock), event_(context, base::Instant::max()) {
    link_ = {false, clock_.wall(), "not connected yet", host};
}

FakeHypervisor::~FakeHypervisor() { *alive_ = false; }

// ---- Faults

void FakeHypervisor::fail(std::string call, base::Error error, std::size_t times, When when) {
    faults_.insert_or_assign(std::move(call), Fault{std::move(error), times, when});
}

void FakeHypervisor::heal(std::string_view call) {
    if (const auto it = faults_.find(call); it != faults_.end()) faults_.erase(it);
}

void FakeHypervisor::hang(std::string call) { hanging_.insert(std::move(call)); }

void FakeHypervisor::release(std::string_view call) {
    if (const auto it = hanging_.find(call); it != hanging_.end()) hanging_.erase(it);
    for (const auto& waiting : waiting_)
        if (waiting->call == call) {
            waiting->released = true;
            waiting->gate.cancel();
        }
    auto late = std::exchange(orphaned_, {});
    for (auto& [name, effect] : late)
        if (name == call)
            static_cast<void>(effect());
        else
            orphaned_.emplace_back(std::move(name), std::move(effect));
}

void FakeHypervisor::drop_link(std::string reason) {
    dropped_ = true;
    if (!link_.connected) {
        link_.reason = std::move(reason);
        return;
    }
    emit({virt::Event::Kind::link_down, {}, reason});
    link_ = {false, clock_.wall(), std::move(reason), host};
    cut_waiting();
}

void FakeHypervisor::cut_waiting() {
    ++connection_;
    for (const auto& waiting : waiting_) {
        waiting->cut = true;
        waiting->gate.cancel();
    }
}

void FakeHypervisor::hang_up() {
    gone_ = true;
    link_ = {false, clock_.wall(), "the agent is gone", host};
    events_.clear();
    cut_waiting();
}

void FakeHypervisor::reconnect() {
    gone_ = closed_ = false;
    link_ = {false, clock_.wall(), "not connected yet", host};
    events_.clear();
}

void FakeHypervisor::reboot_host() {
    orphaned_.clear();
    hanging_.clear();
    guest_handles_.clear();
    std::erase_if(domains_, [](const auto& entry) { return !entry.second.persistent; });
    for (auto& [uuid, domain] : domains_) {
        if (domain.power != Power::suspended) domain.power = Power::off;
        domain.power_reason = "unknown";
        match_live(domain);
    }
}

void FakeHypervisor::restore_link() {
    dropped_ = false;
    if (link_.connected || closed_ || gone_) return;
    link_ = {true, clock_.wall(), {}, host};
    emit({virt::Event::Kind::link_up, {}, "connected"});
}

void FakeHypervisor::emit(virt::Event event) {
    const bool of_link = event.kind == virt::Event::Kind::link_up || event.kind == virt::Event::Kind::link_down;
    if (!of_link && (losing_events_ || !link_.connected)) return;
    if (events_.size() >= event_limit) {
        events_.clear();
        events_.push_back({virt::Event::Kind::overflow, {}, "events were lost"});
        if (of_link) events_.push_back(std::move(event));
    } else {
        events_.push_back(std::move(event));
    }
    event_.cancel();
}

// ---- The world

// What a domain runs with follows from whether it runs.
void FakeHypervisor::match_live(DomainInfo& domain) const {
    if (domain.power != Power::running && domain.power != Power::paused) {
        domain.live_vcpus = 0;
        domain.live_memory_mib = 0;
        domain.running_since.reset();
    } else if (domain.live_vcpus == 0) {
        domain.live_vcpus = domain.vcpus;
        domain.live_memory_mib = domain.memory_mib;
        domain.running_since = clock_.wall();
    }
}

void FakeHypervisor::on_shutdown(std::string uuid, Shutdown how) { shutdown_.insert_or_assign(std::move(uuid), how); }

void FakeHypervisor::guest_powers_off(const std::string& uuid) {
    if (const auto it = domains_.find(uuid); it != domains_.end()) stop(it->second, Power::off, "shutdown");
}

void FakeHypervisor::guest_crashes(const std::string& uuid) {
    if (const auto it = domains_.find(uuid); it != domains_.end()) stop(it->second, Power::crashed, "crashed");
}

void FakeHypervisor::set_power(const std::string& uuid, Power power, std::string reason) {
    auto& domain = domains_.at(uuid);
    domain.power = power;
    domain.power_reason = std::move(reason);
    match_live(domain);
    if (domain.live_vcpus == 0) forget_guest_handles(uuid);
    tell(uuid, "power_changed");
}

void FakeHypervisor::set_addresses(std::string uuid, std::vector<std::string> leases,
                                   std::vector<std::string> from_guest) {
    addresses_.insert_or_assign(std::move(uuid), std::pair{std::move(leases), std::move(from_guest)});
}

void FakeHypervisor::set_usage(std::string uuid, virt::DomainUsage usage) {
    usage_.insert_or_assign(std::move(uuid), usage);
}

void FakeHypervisor::put(DomainInfo domain) {
    const auto uuid = domain.uuid;
    match_live(domain);
    domains_.insert_or_assign(uuid, std::move(domain));
    tell(uuid, "defined");
}

void FakeHypervisor::vanish(const std::string& uuid) {
    specs_.erase(uuid);
    if (domains_.erase(uuid) > 0) tell(uuid, "undefined");
}

void FakeHypervisor::put_network(virt::NetworkInfo network) {
    const auto name = network.name;
    networks_.insert_or_assign(name, std::move(network));
}

void FakeHypervisor::put_pool(virt::PoolInfo pool) {
    const auto name = pool.name;
    pools_.insert_or_assign(name, std::move(pool));
}

const DomainInfo* FakeHypervisor::find(const std::string& uuid) const {
    const auto it = domains_.find(uuid);
    return it == domains_.end() ? nullptr : &it->second;
}

const virt::DomainSpec* FakeHypervisor::spec_of(const std::string& uuid) const {
    const auto it = specs_.find(uuid);
    return it == specs_.end() ? nullptr : &it->second;
}

std::size_t FakeHypervisor::count(std::string_view call) const {
    const auto it = counts_.find(call);
    return it == counts_.end() ? 0 : it->second;
}

// ---- The link

awaitable<void> FakeHypervisor::run() {
    co_await boost::asio::this_coro::throw_if_cancelled(false);
    if (!dropped_) restore_link();
    boost::asio::steady_timer forever{context_, base::Instant::max()};
    co_await forever.async_wait(as_values);
}

awaitable<void> FakeHypervisor::close(std::chrono::milliseconds /*grace*/) {
    co_await boost::asio::this_coro::throw_if_cancelled(false);
    closed_ = true;
    link_ = {false, clock_.wall(), "closed", host};
    for (const auto& waiting : waiting_) waiting->gate.cancel();
    co_await boost::asio::post(context_, as_values);
}

awaitable<virt::Event> FakeHypervisor::next_event() {
    while (events_.empty()) {
        event_.expires_at(base::Instant::max());
        co_await event_.async_wait(as_values);
        const auto state = co_await boost::asio::this_coro::cancellation_state;
        if (events_.empty() && state.cancelled() != boost::asio::cancellation_type::none)
            throw boost::system::system_error{boost::asio::error::operation_aborted};
    }
    auto event = std::move(events_.front());
    events_.pop_front();
    co_return event;
}

std::vector<virt::LaneStats> FakeHypervisor::lanes() const {
    virt::LaneStats mutate{.name = "mutate",
                           .lanes = 4,
                           .busy = waiting_.size(),
                           .overdue = waiting_.size(),
                           .breaker_open = breaker_open_};
    return {virt::LaneStats{.name = "query", .lanes = 2}, std::move(mutate)};
}

// ---- How a call goes

Result<void> FakeHypervisor::take_fault(const std::string& call, When when) {
    const auto it = faults_.find(call);
    if (it == faults_.end() || it->second.when != when) return {};
    auto error = it->second.error;
    auto& left = it->second.times;
    if (left != always) --left;
    if (left == 0) faults_.erase(it);
    return base::fail(std::move(error));
}

FakeHypervisor::Task<void> FakeHypervisor::enter(std::string call) {
    ++counts_[call];
    co_await boost::asio::post(context_, boost::asio::use_awaitable);
    if (!link_.connected) co_return link_is_down();
    co_return take_fault(call, When::before_effect);
}

std::unexpected<base::Error> FakeHypervisor::link_is_down() const {
    return base::fail(Errc::hypervisor_unavailable, link_.reason.empty() ? "the connection was lost" : link_.reason);
}

FakeHypervisor::Task<void> FakeHypervisor::enter_read(std::string call, std::string uuid) {
    if (const auto entered = co_await enter(call); !entered) co_return base::fail(entered.error());
    if (auto told = take_fault(call + " " + uuid, When::before_effect); !told) co_return told;
    if (!hanging_.contains(call) && !hanging_.contains(call + " " + uuid)) co_return Result<void>{};
    if (!co_await clock_.sleep_for(read_deadline)) co_return base::fail(Errc::cancelled, call + " was cancelled");
    co_return base::fail(Errc::deadline_exceeded, "the hypervisor did not answer " + call + " in time");
}

boost::asio::awaitable<void> FakeHypervisor::leave_read(std::string_view call) {
    const auto late = late_.find(call);
    if (late != late_.end() && late->second > base::Duration::zero()) co_await clock_.sleep_for(late->second);
}

FakeHypervisor::Task<void> FakeHypervisor::change(std::string call, Stalled stalled, Effect effect, Late late,
                                                  std::string uuid) {
    if (const auto entered = co_await enter(call); !entered) co_return base::fail(entered.error());
    const auto connection = connection_;
    const auto takes = latency ? latency(call) : Latency{};
    if (takes.before > base::Duration::zero()) {
        co_await boost::asio::this_coro::throw_if_cancelled(false);
        const bool awaited = co_await clock_.sleep_for(takes.before);
        if (connection != connection_) co_return link_is_down();
        if (!awaited) {
            if (late == Late::comes) static_cast<void>(effect());
            co_return base::fail(Errc::cancelled, "nobody waits for " + call + " any more");
        }
    }
    if (hanging_.contains(call)) {
        co_await boost::asio::this_coro::throw_if_cancelled(false);
        const auto waiting = std::make_shared<Waiting>(call, std::move(uuid), context_);
        waiting_.push_back(waiting);
        if (stalled) stalled();
        if (!waiting->released) co_await waiting->gate.async_wait(as_values);
        waiting_.remove(waiting);
        if (!waiting->released) {
            if (late == Late::comes) orphaned_.emplace_back(call, std::move(effect));
            if (waiting->cut) co_return link_is_down();
            co_return base::fail(closed_ ? Errc::hypervisor_unavailable : Errc::cancelled,
                                 "nobody waits for " + call + " any more");
        }
    }
    if (auto done = effect(); !done) co_return done;
    if (takes.after > base::Duration::zero()) {
        co_await boost::asio::this_coro::throw_if_cancelled(false);
        const bool awaited = co_await clock_.sleep_for(takes.after);
        if (connection != connection_) co_return link_is_down();
        if (!awaited) co_return base::fail(Errc::cancelled, "nobody waits for " + call + " any more");
    }
    co_return take_fault(call, When::after_effect);
}

FakeHypervisor::Task<void> FakeHypervisor::change_domain(std::string call, std::string uuid, Stalled stalled,
                                                         DomainEffect effect) {
    Effect whole = [this, uuid, effect = std::move(effect)]() -> Result<void> {
        const auto it = domains_.find(uuid);
        return it == domains_.end() ? no_domain(uuid) : effect(it->second);
    };
    return change(std::move(call), std::move(stalled), std::move(whole), Late::comes, std::move(uuid));
}

void FakeHypervisor::stop(DomainInfo& domain, Power power, std::string reason) {
    domain.power = power;
    domain.power_reason = std::move(reason);
    match_live(domain);
    forget_guest_handles(domain.uuid);
    tell(domain.uuid, domain.power_reason == "crashed" ? "crashed" : "stopped");
    if (!domain.persistent) domains_.erase(std::string{domain.uuid});
}

// Events come after the call that caused them, as they do from a daemon.
void FakeHypervisor::tell(const std::string& uuid, std::string what) {
    boost::asio::post(context_, [this, alive = alive_, uuid, what = std::move(what)]() mutable {
        if (*alive) emit({virt::Event::Kind::domain, uuid, std::move(what)});
    });
}

}  // namespace ghost::fakes
